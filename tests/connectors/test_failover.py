from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.connectors.failover import Config
from otelwp_agent.errors import ConfigError, ForbiddenError, MalformedError, Overloaded, RetryableError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.fake_time import FakeTimeLoop
from tests.kit.graphs import Running, plan

GRAPH = """
receivers: {hand: }
exporters:
  sink/first: {sending_queue: {queue_size: 20}}
  sink/second: {sending_queue: {queue_size: 20}}
connectors:
  failover:
    priority_levels: [[traces/first], [traces/second]]
    retry_interval: 10s
    return_time: 20s
service:
  pipelines:
    traces: {receivers: [hand], exporters: [failover]}
    traces/first: {receivers: [failover], exporters: [sink/first]}
    traces/second: {receivers: [failover], exporters: [sink/second]}
"""


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


def play(loop, scenario, graph=GRAPH):
    """Run a scenario with the running graph; check afterwards that every account balances."""
    running = Running(loop.time)

    async def whole():
        await running.go(graph)
        await scenario(running)
        await running.stop()

    loop.run_until_complete(whole())
    for head in running.graph.heads.values():
        assert head.total.in_flight == 0, head.pipeline
    for sender in running.graph.senders.values():
        line = sender.line()
        assert line.accepted == line.delivered + line.dropped
    return running


def condition(running):
    return running.graph.connectors[next(iter(running.graph.connectors))].health().details["destinations"]["traces"]


def delivered(receipts):
    return sum(receipt.count(Outcome.DELIVERED) for receipt in receipts)


def test_the_first_level_gets_everything_while_it_works(loop):
    async def scenario(running):
        receipts = [running.hand.receive() for _ in range(10)]
        await asyncio.sleep(1)
        assert delivered(receipts) == 10
        assert (len(running.sink_first.batches), len(running.sink_second.batches)) == (10, 0)

    running = play(loop, scenario)
    assert running.registry.value("otelwp_destination_items", destination="traces/first") == 10


def test_batches_that_fail_move_at_once_and_each_is_delivered_once(loop):
    async def scenario(running):
        running.sink_first.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(10)]
        await asyncio.sleep(0.1)
        assert delivered(receipts) == 10
        assert len(running.sink_second.batches) == 10
        assert condition(running) == {"traces/first": "down", "traces/second": "up"}
        failed = running.sink_first.failed
        await asyncio.sleep(5)
        receipts = [running.hand.receive() for _ in range(10)]
        await asyncio.sleep(0.1)
        assert delivered(receipts) == 10
        assert running.sink_first.failed == failed

    with capture_logs() as logs:
        running = play(loop, scenario)
    assert [line["destination"] for line in logs if line["event"].startswith("destination is down")] == ["traces/first"]
    assert running.registry.value("otelwp_destination_moved_items", to="traces/second") == 10
    accepted = {name: head.total.accepted for name, head in running.graph.heads.items()}
    assert accepted == {"traces": 20, "traces/first": 0, "traces/second": 20}


def test_what_waits_behind_an_attempt_that_hangs_moves_when_it_times_out(loop):
    async def scenario(running):
        running.sink_first.gate.clear()
        receipts = [running.hand.receive() for _ in range(12)]
        await asyncio.sleep(4)
        assert delivered(receipts) == 0
        await asyncio.sleep(20)
        assert delivered(receipts) == 12
        running.sink_first.gate.set()

    play(loop, scenario, GRAPH.replace("queue_size: 20", "queue_size: 20, num_consumers: 2"))


def test_with_sticky_batches_wait_for_their_exporter(loop):
    async def scenario(running):
        running.sink_first.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(6)]
        await asyncio.sleep(1)
        assert delivered(receipts) == 0
        receipts.append(running.hand.receive())
        await asyncio.sleep(1)
        assert delivered(receipts) == 1
        running.sink_first.error = None
        await asyncio.sleep(60)
        assert delivered(receipts) == 7
        assert len(running.sink_first.batches) == 6

    play(loop, scenario, GRAPH.replace("retry_interval", "sticky: true\n    retry_interval"))


def test_a_level_is_tested_and_gets_its_data_back_gradually(loop):
    async def scenario(running):
        running.sink_first.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(10)]
        await asyncio.sleep(1)
        tests = running.sink_first.failed
        for _ in range(9):
            await asyncio.sleep(1)
            receipts += [running.hand.receive() for _ in range(5)]
        await asyncio.sleep(1)
        assert running.sink_first.failed == tests + 1
        running.sink_first.error = None
        while condition(running)["traces/first"] == "down":  # the breaker's pause has a random part
            receipts.append(running.hand.receive())
            await asyncio.sleep(1)
        shares = []
        for _ in range(3):
            before = len(running.sink_first.batches)
            for _ in range(10):
                receipts += [running.hand.receive() for _ in range(10)]
                await asyncio.sleep(1)
            shares.append(len(running.sink_first.batches) - before)
        assert delivered(receipts) == len(receipts)
        assert 10 <= shares[0] < shares[1] < shares[2] == 100
        assert condition(running) == {"traces/first": "up", "traces/second": "up"}

    play(loop, scenario)


@pytest.mark.parametrize("error", [ForbiddenError("403"), Overloaded("429", retry_after=30)])
def test_refused_batches_move(loop, error):
    async def scenario(running):
        running.sink_first.error = error
        receipts = [running.hand.receive() for _ in range(8)]
        await asyncio.sleep(1)
        assert delivered(receipts) == 8
        refused = running.sink_first.failed
        receipts = [running.hand.receive() for _ in range(3)]
        await asyncio.sleep(1)
        assert delivered(receipts) == 3
        assert running.sink_first.failed == refused

    play(loop, scenario)


def test_what_every_level_refuses_for_good_is_dropped_and_no_level_is_down(loop):
    async def scenario(running):
        running.sink_first.error = running.sink_second.error = MalformedError("400")
        receipts = [running.hand.receive() for _ in range(8)]
        await asyncio.sleep(1)
        assert [receipt.reason for receipt in receipts] == ["malformed"] * 8
        assert (running.sink_first.failed, running.sink_second.failed) == (8, 8)
        assert condition(running) == {"traces/first": "up", "traces/second": "up"}

    play(loop, scenario)


def test_while_every_level_is_down_batches_wait_and_the_first_that_works_gets_them(loop):
    async def scenario(running):
        connector = running.graph.connectors[next(iter(running.graph.connectors))]
        running.sink_first.error = running.sink_second.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(15)]
        await asyncio.sleep(10)
        assert not connector.health().healthy
        assert "every destination is down for traces" in connector.health().message
        running.sink_second.error = None
        await asyncio.sleep(60)
        assert delivered(receipts) == 15
        assert len(running.sink_second.batches) == 15

    play(loop, scenario)


def test_a_full_queue_sends_new_batches_to_the_next_level_until_all_are_full(loop):
    async def scenario(running):
        running.sink_first.gate.clear()
        running.sink_second.gate.clear()
        receipts = [running.hand.receive() for _ in range(40)]
        with pytest.raises(Overloaded, match="queue of sink/first is full"):
            running.hand.receive()
        with pytest.raises(Overloaded):
            running.hand.next[Signal.TRACES].admit()
        running.sink_second.gate.set()
        await asyncio.sleep(0.1)
        assert delivered(receipts) == 20
        running.hand.next[Signal.TRACES].admit()
        running.sink_first.gate.set()
        await asyncio.sleep(0.1)
        assert delivered(receipts) == 40

    play(loop, scenario)


def test_a_level_of_two_pipelines_is_down_if_one_is_and_loses_nothing(loop):
    graph = GRAPH.replace("[[traces/first],", "[[traces/first, traces/also],")
    graph += "    traces/also: {receivers: [failover], exporters: [sink/also]}\n"
    graph = graph.replace("exporters:\n", "exporters:\n  sink/also:\n", 1)

    async def scenario(running):
        running.sink_also.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(6)]
        await asyncio.sleep(1)
        assert condition(running) == {"traces/first, traces/also": "down", "traces/second": "up"}
        receipts += [running.hand.receive() for _ in range(6)]
        await asyncio.sleep(1)
        assert [len(sink.batches) for sink in (running.sink_first, running.sink_second)] == [6, 6]
        running.sink_also.error = None
        await asyncio.sleep(60)
        assert delivered(receipts) == 12
        assert len(running.sink_also.batches) == 6

    play(loop, scenario, graph)


def test_a_reload_keeps_watching_and_the_old_connector_does_not(loop):
    async def scenario(running):
        await running.go(GRAPH.replace("return_time: 20s", "return_time: 10s"))
        assert [len(sender._watchers._watchers) for sender in running.graph.senders.values()] == [1, 1]
        running.sink_first.error = RetryableError("away")
        receipts = [running.hand.receive() for _ in range(10)]
        await asyncio.sleep(1)
        assert delivered(receipts) == 10
        assert running.registry.value("otelwp_destination_share") == 1

    play(loop, scenario)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "priority_levels"),
        ({"priority_levels": []}, "priority_levels"),
        ({"priority_levels": [[]]}, "priority_levels"),
        ({"priority_levels": [["traces/a"]], "retry_interval": "0s"}, "retry_interval"),
    ],
)
def test_invalid_settings(settings, said):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    assert said in str(caught.value)


def test_a_pipeline_in_two_levels_is_reported_with_its_place():
    config = Config.model_validate({"priority_levels": [["traces/a"], ["traces/b", "traces/a"]]})
    [(path, message)] = config.contradictions()
    assert path == ("priority_levels", 1, 1)
    assert "`traces/a` is in level 1 already" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[traces/second]]", "[traces/third]]", "there is no pipeline `traces/third`"),
        ("exporters: [sink/second]", "exporters: [failover]", "circulate forever"),
        ("second: {receivers: [failover]", "second: {receivers: [hand]", "does not have `failover` as receiver"),
    ],
)
def test_the_plan_checks_the_levels(old, new, said):
    with pytest.raises(ConfigError, match=said):
        plan(GRAPH.replace(old, new))


def test_settings_of_the_collector_without_effect_give_a_warning():
    more = "retry_gap: 1s\n    max_retries: 3\n    sending_queue: {queue_size: 5}\n    retry_interval"
    warnings = [str(problem) for problem in plan(GRAPH.replace("retry_interval", more)).warnings]
    assert [name for name in ("retry_gap", "max_retries", "sending_queue") if any(name in one for one in warnings)] == [
        "retry_gap",
        "max_retries",
        "sending_queue",
    ]
