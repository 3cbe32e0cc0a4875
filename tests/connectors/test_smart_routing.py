from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from otelwp_agent.connectors.smart_routing import Config, strategy_of
from otelwp_agent.errors import ConfigError, RetryableError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.testing.fake_time import run
from tests.kit.graphs import Running, plan

GRAPH = """
receivers: {hand: }
exporters: {sink/a: , sink/b: }
connectors:
  smart_routing:
    strategy: STRATEGY
    destinations:
      a: {pipelines: [traces/a]}
      b: {pipelines: [traces/b]}
service:
  pipelines:
    traces: {receivers: [hand], exporters: [smart_routing]}
    traces/a: {receivers: [smart_routing], exporters: [sink/a]}
    traces/b: {receivers: [smart_routing], exporters: [sink/b]}
"""
A_B = {"a": {"pipelines": ["traces/a"]}, "b": {"pipelines": ["traces/b"]}}


def settings(**more):
    return {"destinations": A_B} | more


def shares(strategy, *, graph=GRAPH, fails=False, slow=0.0, number=40):
    """Return the numbers of batches that the destinations get; `a` fails or is slow."""

    async def scenario():
        running = Running(asyncio.get_running_loop().time)
        await running.go(graph.replace("STRATEGY", strategy))
        a, b = running.sink_a, running.sink_b
        a.error = RetryableError("away") if fails else None
        receipts = []
        for _ in range(number):
            if slow:
                a.gate.clear()
                asyncio.get_running_loop().call_later(slow, a.gate.set)
            receipts.append(running.hand.receive())
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert all(receipt.count(Outcome.DELIVERED) == 1 for receipt in receipts)
        await running.stop()
        return len(a.batches), len(b.batches)

    return run(scenario())


def test_batches_in_turn():
    assert shares("round_robin") == (20, 20)


def test_items_in_proportion_to_the_weights():
    assert shares("weighted", graph=GRAPH.replace("[traces/b]}\nservice", "[traces/b], weight: 3}\nservice")) == (
        10,
        30,
    )


def test_the_faster_destination_gets_nearly_everything():
    slow, fast = shares("least_latency", slow=1.0)
    assert slow + fast == 40
    assert fast > 30


@pytest.mark.parametrize("strategy", ["failover", "round_robin", "least_latency"])
def test_what_fails_is_delivered_by_the_other_one(strategy):
    assert shares(strategy, fails=True) == (0, 40)


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        ({"destinations": {**A_B, "c": {"pipelines": ["traces/a"]}}}, ("c", "pipelines", 0), "destination `a` already"),
        ({"destinations": {"a": {"pipelines": ["traces/a"] * 2}}}, ("a", "pipelines", 1), "in this list already"),
        ({"destinations": {"a": {"pipelines": ["traces/a"], "weight": 2}}}, ("a", "weight"), "use strategy `weighted`"),
        (
            {"destinations": {"a": {"pipelines": ["traces/a"], "quality": 2}}},
            ("a", "quality"),
            "use strategy `quality`",
        ),
        (
            {
                "destinations": {"a": {"pipelines": ["traces/a"], "region": "us"}},
                "constraints": {"regions": ["eu", "uk"]},
            },
            ("a", "region"),
            "permits only `eu` and `uk`",
        ),
        (
            {"destinations": {"a": {"pipelines": ["traces/a"]}}, "constraints": {"regions": ["eu"]}},
            ("a",),
            "has no region",
        ),
    ],
)
def test_contradictions_are_reported_with_their_place(more, path, said):
    [(found, message)] = Config.model_validate(settings(**more)).contradictions()
    assert found == ("destinations", *path)
    assert said in message


@pytest.mark.parametrize(
    "more",
    [
        {"strategy": "cheapest"},
        {"destinations": {}},
        {"destinations": {"a": {"pipelines": []}}},
        {"destinations": {"a": {"pipelines": ["traces/a"], "weight": 0}}},
        {"constraints": {"min_success_ratio": 1.5}},
        {"constraints": {"max_latency": 5}},
    ],
)
def test_invalid_settings(more):
    with pytest.raises(ValidationError):
        Config.model_validate(settings(**more))


def test_the_settings_choose_the_strategy():
    kinds = {
        name: type(strategy_of(Config.model_validate(settings(strategy=name)))).__name__
        for name in ("failover", "round_robin", "weighted", "least_latency", "quality")
    }
    assert [*kinds.values()] == ["Strategy", "Weighted", "Weighted", "LeastLatency", "Ranked"]
    constrained = Config.model_validate(settings(constraints={"min_success_ratio": 0.9}))
    assert type(strategy_of(constrained)).__name__ == "Constrained"


def test_the_plan_checks_the_destinations():
    with pytest.raises(ConfigError, match="there is no pipeline `traces/c`"):
        plan(GRAPH.replace("STRATEGY", "failover").replace("pipelines: [traces/b]", "pipelines: [traces/c]"))
