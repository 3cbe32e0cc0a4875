from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import settings as chances
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.component import Carries
from otelwp_agent.connectors.smart_routing import Config, strategy_of
from otelwp_agent.errors import ConfigError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
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
        for name in ("failover", "round_robin", "weighted", "least_latency", "quality", "hash")
    }
    assert [*kinds.values()] == ["Strategy", "Weighted", "Weighted", "LeastLatency", "Ranked", "Strategy"]
    constrained = Config.model_validate(settings(constraints={"min_success_ratio": 0.9}))
    assert type(strategy_of(constrained)).__name__ == "Constrained"


def test_the_plan_checks_the_destinations():
    with pytest.raises(ConfigError, match="there is no pipeline `traces/c`"):
        plan(GRAPH.replace("STRATEGY", "failover").replace("pipelines: [traces/b]", "pipelines: [traces/c]"))


def hashed(names, requests, *, key="trace_id", away=()):
    """Return the traces that each destination gets of requests, which are lists of trace numbers."""
    graph = GRAPH.partition("connectors:")[0].replace(
        "sink/a: , sink/b: ", ", ".join(f"sink/{name}: " for name in names)
    )
    graph += f"connectors:\n  smart_routing:\n    strategy: hash\n    hash_key: {key}\n    destinations:\n"
    graph += "".join(f"      {name}: {{pipelines: [traces/{name}]}}\n" for name in names)
    graph += "service:\n  pipelines:\n    traces: {receivers: [hand], exporters: [smart_routing]}\n"
    graph += "".join(f"    traces/{name}: {{receivers: [smart_routing], exporters: [sink/{name}]}}\n" for name in names)

    async def scenario():
        running = Running(asyncio.get_running_loop().time)
        await running.go(graph)
        sinks = {name: getattr(running, f"sink_{name}") for name in names}
        for name in away:
            sinks[name].error = RetryableError("away")
        receipts = []
        for number, traces in enumerate(requests):
            message = ExportTraceServiceRequest()
            spans = message.resource_spans.add().scope_spans.add().spans
            for trace in traces:
                spans.add(trace_id=trace.to_bytes(16), span_id=(number + 1).to_bytes(8))
            receipts.append(Receipt(len(traces)))
            origin = Origin("hand", tenant=f"tenant {number % 5}")
            body = message.SerializeToString()
            running.hand.next[Signal.TRACES].consume(
                Batch(Signal.TRACES, body, len(traces), origin, ((receipts[-1], len(traces)),))
            )
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert all(receipt.count(Outcome.DELIVERED) == len(of) for receipt, of in zip(receipts, requests, strict=True))
        await running.stop()
        return {name: sink.batches for name, sink in sinks.items()}

    return run(scenario())


def traces_in(batches):
    return Counter(
        int.from_bytes(span.trace_id)
        for batch in batches
        for group in ExportTraceServiceRequest.FromString(batch.body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    )


def owners(got):
    """Return the destination of each trace; fail if a trace has two."""
    found = [(trace, name) for name, batches in got.items() for trace in traces_in(batches)]
    assert len(found) == len(dict(found))
    return dict(found)


@chances(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=20), min_size=1, max_size=6))
def test_hash_loses_and_splits_no_trace(requests):
    got = hashed("abc", requests)
    owners(got)
    assert sum((traces_in(batches) for batches in got.values()), Counter()) == Counter(chain(*requests))


def test_a_destination_that_is_added_takes_its_part_and_nothing_moves_between_the_others():
    requests = [[*range(1, 1001)], [*range(1, 1001)]]
    before, after = owners(hashed("abc", requests)), owners(hashed("abcd", requests))
    moved = [trace for trace in before if before[trace] != after[trace]]
    assert {after[trace] for trace in moved} == {"d"}
    assert 200 < len(moved) < 300
    assert all(250 < number < 420 for number in Counter(before.values()).values())


def test_what_hash_would_send_to_a_destination_that_fails_goes_to_the_next_one():
    requests = [[*range(1, 31)]] * 3
    healthy, failing = owners(hashed("abc", requests)), owners(hashed("abc", requests, away="c"))
    assert failing == {trace: "a" if name == "c" else name for trace, name in healthy.items()}
    assert {*healthy.values()} == {*"abc"}


def test_hash_by_tenant_keeps_requests_whole():
    got = hashed("abc", [[1, 2, 3]] * 20, key="tenant")
    places = {(batch.origin.tenant, name) for name, batches in got.items() for batch in batches}
    assert len(places) == 5


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        ({"hash_key": "tenant"}, ("hash_key",), "or use strategy `hash`"),
        ({"strategy": "hash", "hash_key": "resource_attribute"}, ("hash_key",), "give `hash_attribute`"),
        ({"strategy": "hash", "hash_attribute": "x"}, ("hash_attribute",), "use `hash_key: resource_attribute`"),
        (
            {"strategy": "hash", "destinations": {"a": {"pipelines": ["traces/a", "metrics/a"]}}},
            ("destinations", "a", "pipelines", 1),
            "metrics have no trace id",
        ),
    ],
)
def test_contradictions_of_hash(more, path, said):
    [(found, message)] = Config.model_validate(settings(**more)).contradictions()
    assert found == path
    assert said in message


def test_only_the_tenant_of_encoded_bodies_can_be_hashed():
    unfit = Config.model_validate(settings(strategy="hash")).unfit_for(Carries.ENCODED)
    assert unfit.setting == ("strategy",)
    assert "use `hash_key: tenant`" in unfit.reason
    assert Config.model_validate(settings(strategy="hash", hash_key="tenant")).unfit_for(Carries.ENCODED) is None
    assert Config.model_validate(settings()).unfit_for(Carries.ENCODED) is None
