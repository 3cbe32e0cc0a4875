import pytest

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.service.audit import report_of
from tests.kit.graphs import Running, until

ONE = """
receivers: {hand: }
processors: {pass: }
exporters: {sink: }
service: {pipelines: {traces: {receivers: [hand], processors: [pass], exporters: [sink]}}}
"""
TWO = """
receivers: {hand: }
connectors: {forward: }
exporters: {sink: , sink/2: }
service:
  pipelines:
    traces: {receivers: [hand], exporters: [forward, sink/2]}
    traces/late: {receivers: [forward], exporters: [sink]}
"""


@pytest.fixture
async def running():
    running = Running()
    yield running
    await running.stop()


def lines(running):
    return {(line.kind, line.name): line for line in report_of(running.graph).lines}


def hold(running):
    """Have the processor keep what it gets; return where."""
    (stage,) = running.graph.processors.values()
    stage.held = []
    return stage.held


async def test_an_agent_that_has_taken_nothing(running):
    await running.go(ONE)
    report = report_of(running.graph)
    assert report.balances
    assert [(line.kind, line.name, line.accepted) for line in report.lines] == [("exporter", "sink", 0)]


async def test_what_is_in_flight_is_counted_where_it_is(running):
    await running.go(ONE)
    running.sink.gate.clear()
    running.hand.receive(3)
    hold(running)
    running.hand.receive(4)
    found = lines(running)
    assert (found["pipeline", "traces"].accepted, found["pipeline", "traces"].in_flight) == (7, 7)
    assert found["receiver", "hand"].in_flight == found["tenant", ""].in_flight == 7
    assert (found["exporter", "sink"].accepted, found["exporter", "sink"].in_flight) == (3, 3)
    assert report_of(running.graph).balances
    running.sink.gate.set()
    await until(lambda: lines(running)["exporter", "sink"].delivered == 3)
    assert lines(running)["pipeline", "traces"].delivered == 3
    assert report_of(running.graph).balances


async def test_what_was_dropped_has_its_reason(running):
    await running.go(ONE)
    held = hold(running)
    running.hand.receive(5)
    ((receipt, _),) = held.pop().shares
    receipt.settle(Outcome.SAMPLED_OUT, 1)
    receipt.settle(Outcome.FILTERED, 1)
    receipt.settle(Outcome.DROPPED, 2, "bad_day")
    line = lines(running)["pipeline", "traces"]
    assert (line.sampled_out, line.filtered, line.dropped, line.reasons) == (1, 1, 2, {"bad_day": 2})
    assert (line.in_flight, line.balance) == (1, 0)


async def test_a_receipt_that_is_dropped_unsettled_is_missing(running):
    await running.go(ONE)
    held = hold(running)
    running.hand.receive(5)
    assert report_of(running.graph).balances
    held.clear()  # a bug in a processor
    report = report_of(running.graph)
    assert not report.balances
    assert "pipeline traces: 5 items are missing" in report.all_problems()[0]


async def test_accounts_stay_when_their_pipeline_goes(running):
    await running.go(ONE)
    running.hand.receive(2)
    await until(lambda: lines(running)["pipeline", "traces"].delivered == 2)
    await running.go(ONE.replace("traces:", "traces/new:"))
    running.hand.receive(1)
    await until(lambda: lines(running)["pipeline", "traces/new"].delivered == 1)
    found = lines(running)
    assert found["pipeline", "traces"].accepted == 2
    assert found["receiver", "hand"].accepted == 3


async def test_a_connector_begins_accounts_of_its_own(running):
    await running.go(TWO)
    running.sink.gate.clear()
    running.hand.receive(2)
    await until(lambda: lines(running)["exporter", "sink/2"].delivered == 2)
    found = lines(running)
    assert found["pipeline", "traces"].in_flight == found["pipeline", "traces/late"].in_flight == 2
    assert report_of(running.graph).balances
    running.sink.gate.set()
    await until(lambda: lines(running)["pipeline", "traces"].delivered == 2)
    assert report_of(running.graph).balances


async def test_what_a_journal_brings_again_is_accepted_anew_behind_a_connector(running):
    await running.go(TWO)
    running.sink.gate.clear()
    running.hand.receive(3)
    ((_, sender),) = [item for item in running.graph.senders.items() if str(item[0][0]) == "sink"]
    entry = sender._queue.take()
    ((receipt, _),) = entry.batch.shares
    receipt.park(2)
    line = lines(running)["pipeline", "traces/late"]
    assert (line.accepted, line.in_flight, line.balance) == (1, 1, 0)
    receipt.settle(Outcome.DELIVERED, 1)
    line = lines(running)["pipeline", "traces/late"]
    assert (line.accepted, line.delivered, line.in_flight, line.balance) == (1, 1, 0, 0)
    sender._queue.release(entry)
    running.sink.gate.set()


@pytest.mark.parametrize("figure", ["accepted", "settled"])
async def test_a_ledger_that_was_tampered_with(running, figure):
    await running.go(ONE)
    running.hand.receive(2)
    await until(lambda: lines(running)["pipeline", "traces"].delivered == 2)
    (ledger,) = running.environment.ledgers
    if figure == "accepted":
        ledger.accepted += 1
    else:
        ledger.settled[Outcome.DROPPED] += 1
    assert not report_of(running.graph).balances
