import asyncio
import time

import pytest
import structlog

from otelwp_agent.config.service import JournalConfig
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError, StartError
from otelwp_agent.journal.journal import Journal
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.graph import Graph
from otelwp_agent.pipeline.intake import Intake
from tests.kit.graphs import Running, plan, until
from tests.kit.otlp import delimited

ONE = """
receivers: {hand: }
processors: {pass: }
exporters: {sink: }
service: {pipelines: {traces: {receivers: [hand], processors: [pass], exporters: [sink]}}}
"""
TWO = """
receivers: {hand: }
exporters:
  sink: {sending_queue: {queue_size: 2, num_consumers: 1}}
  sink/2: {sending_queue: {queue_size: 2, num_consumers: 1}}
service: {pipelines: {traces: {receivers: [hand], exporters: [sink, sink/2]}}}
"""


def answered(future):
    """Return a task for the answer; a request that is never answered fails the test instead of stopping it."""
    return asyncio.ensure_future(asyncio.wait_for(future, 60))


class Agent(Running):
    """A graph before which a journal stands."""

    def __init__(self, directory, **settings):
        super().__init__()
        log, ledgers = structlog.get_logger(), self.environment.ledgers
        journal = Journal(JournalConfig(directory=str(directory), **settings), ledgers, self.registry, log)
        journal.open()
        self.journal = journal
        self.environment.intake = Intake(journal, ledgers, log)

    async def go(self, yaml):
        graph = await super().go(yaml)
        self.environment.intake.start()
        return graph

    def send(self, number, spans=1, **origin):
        body = delimited(1, delimited(2, delimited(2, b"\x2a\x04%04d" % number) * spans))
        receipt = Receipt(spans)
        entry = self.hand.next[Signal.TRACES]
        batch = Batch(Signal.TRACES, body, spans, Origin("hand", "http", **origin), ((receipt, spans),))
        return answered(entry.consume(batch, "yes", lambda lost, why: (lost, why)))

    async def die(self):
        """End without a word to anybody, as after `kill -9`."""
        self.environment.intake.stop()
        await self.journal._commits.quiet()
        self.journal._commits.stop()
        self.journal._store.close()

    def sums(self):
        (ledger,) = self.environment.ledgers.of_pipeline("traces").values()
        return ledger.accepted, ledger.settled, ledger.in_flight


def numbers(sink):
    return [int(batch.body[-4:]) for batch in sink.batches]


async def test_who_sends_is_answered_when_it_is_on_disk(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE)
    told = agent.send(1)
    assert not told.done()
    assert await told == "yes"
    await until(lambda: agent.journal.entries == 0)
    assert (numbers(agent.sink), agent.sums()) == ([1], (1, [1, 0, 0, 0], 0))
    await agent.stop()


async def test_what_had_no_room_waits_on_disk_and_comes_in_order(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE.replace("sink: }", "sink: {sending_queue: {queue_size: 3, num_consumers: 1}}}"))
    agent.sink.gate.clear()
    assert await asyncio.gather(*[agent.send(number) for number in range(20)]) == ["yes"] * 20
    assert agent.journal.waiting == 17
    assert agent.sums() == (20, [0, 0, 0, 0], 20)
    agent.sink.gate.set()
    await until(lambda: agent.journal.entries == 0)
    assert (sorted(numbers(agent.sink)), agent.sums()[1]) == (list(range(20)), [20, 0, 0, 0])
    assert numbers(agent.sink)[3:] == list(range(3, 20))
    await agent.stop()


async def test_a_crash_forgets_nothing_that_is_held_anywhere(tmp_path):
    first = Agent(tmp_path)
    await first.go(ONE)
    stage = first.graph.processors[next(iter(first.graph.processors))]
    stage.held = []
    await asyncio.gather(*[first.send(number) for number in range(5)])
    await first.die()

    second = Agent(tmp_path)
    await second.go(ONE)
    await until(lambda: second.journal.entries == 0)
    assert (numbers(second.sink), second.sums()) == (list(range(5)), (5, [5, 0, 0, 0], 0))
    await second.stop()


async def test_one_branch_is_down_and_the_other_gets_everything_once_and_at_once(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(TWO)
    agent.sink_2.gate.clear()
    await asyncio.gather(*[agent.send(number) for number in range(50)])
    await until(lambda: len(agent.sink.batches) == 50)
    assert agent.journal.waiting == 48, "what the other branch has no room for waits for it alone"
    agent.sink_2.gate.set()
    await until(lambda: agent.journal.entries == 0)
    assert sorted(numbers(agent.sink)) == sorted(numbers(agent.sink_2)) == list(range(50))
    assert agent.sums() == (50, [50, 0, 0, 0], 0)
    await agent.stop()


async def test_after_a_crash_the_branch_that_had_it_is_not_asked_again(tmp_path):
    first = Agent(tmp_path)
    await first.go(TWO)
    first.sink_2.gate.clear()
    await asyncio.gather(*[first.send(number) for number in range(50)])
    await until(lambda: len(first.sink.batches) == 50)
    first.journal._commits.commit()
    await first.die()

    second = Agent(tmp_path)
    await second.go(TWO)
    await until(lambda: second.journal.entries == 0)
    assert (numbers(second.sink), sorted(numbers(second.sink_2))) == ([], list(range(50)))
    assert second.sums() == (50, [50, 0, 0, 0], 0)
    await second.stop()


async def test_what_arrives_while_a_backlog_drains_does_not_wait_behind_it(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE.replace("sink: }", "sink: {sending_queue: {queue_size: 10, num_consumers: 1}}}"))
    agent.sink.gate.clear()
    export = agent.sink.export

    async def slowly(batch):
        await asyncio.sleep(0.0005)  # or all of it might be through before the one that arrives is on disk
        return await export(batch)

    agent.sink.export = slowly
    await asyncio.gather(*[agent.send(number) for number in range(400)])
    agent.sink.gate.set()
    await until(lambda: len(agent.sink.batches) > 50)
    await agent.send(5000)
    await until(lambda: 5000 in numbers(agent.sink))
    assert numbers(agent.sink).index(5000) < 390
    await until(lambda: agent.journal.entries == 0)
    await agent.stop()


async def test_who_waits_for_the_outcome_is_told(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE)
    entry = agent.hand.next[Signal.TRACES]
    entry.waits = True
    stage = agent.graph.processors[next(iter(agent.graph.processors))]
    stage.held = []
    told = [agent.send(number, spans=2) for number in range(4)]
    await until(lambda: len(stage.held) == 4)
    assert not any(answer.done() for answer in told)
    good, bad, half, late = stage.held
    good.settle(Outcome.DELIVERED)
    bad.settle(Outcome.DROPPED, "malformed")
    half.shares[0][0].settle(Outcome.DROPPED, 1, "malformed")
    half.shares[0][0].settle(Outcome.DELIVERED, 1)
    late.settle(Outcome.DROPPED, "retries_exhausted")
    stage.held = None
    assert await told[0] == "yes"
    with pytest.raises(PermanentError, match=r"2 of 2 items were dropped \(malformed\)"):
        await told[1]
    assert await told[2] == (1, "1 of 2 items were dropped (malformed)")
    with pytest.raises(RetryableError, match="retries_exhausted"):
        await told[3]
    await agent.stop()


async def test_a_pipeline_that_breaks_or_refuses_for_good_drops_and_goes_on(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE)
    head = agent.graph.heads["traces"]
    real = head.first

    class Broken:
        error = ValueError("a bug")

        def consume(self, batch):
            raise self.error

    head.first = Broken()
    assert await agent.send(1) == "yes"
    Broken.error = PermanentError("never", reason="never")
    assert await agent.send(2) == "yes"
    head.first = real
    await agent.send(3)
    await until(lambda: agent.journal.entries == 0)
    (ledger,) = agent.environment.ledgers.of_pipeline("traces").values()
    assert ledger.dropped_reasons == {"internal_error": 1, "never": 1}
    assert numbers(agent.sink) == [3]
    await agent.stop()


async def test_a_pipeline_that_is_gone_after_a_restart_drops_what_was_for_it_and_says_so(tmp_path):
    first = Agent(tmp_path)
    await first.go(ONE)
    stage = first.graph.processors[next(iter(first.graph.processors))]
    stage.held = []
    await first.send(1)
    await first.die()
    second = Agent(tmp_path)
    await second.go(ONE.replace("traces:", "traces/new:"))
    await until(lambda: second.journal.entries == 0)
    assert second.sums() == (1, [0, 0, 0, 1], 0)
    await second.stop()


async def test_only_headers_that_somebody_reads_are_written(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE)
    agent.environment.intake.switch(agent.graph.heads, ("user-agent",))
    await agent.send(1, headers={"authorization": "Bearer secret", "user-agent": "WordPress/6.1"})
    written = b"".join(path.read_bytes() for path in tmp_path.glob("*.journal"))
    assert b"WordPress/6.1" in written
    assert b"secret" not in written
    await agent.stop()


async def test_a_reload_that_fails_feeds_no_pipeline_of_the_graph_that_never_ran(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE)
    with pytest.raises(StartError):
        await agent.go(ONE.replace("hand: }", "hand: {fails: true}}").replace("traces:", "traces/new:"))
    assert agent.environment.intake._heads.keys() == {"traces"}
    await agent.go(ONE.replace("traces:", "traces/new:"))
    assert agent.environment.intake._heads.keys() == {"traces/new"}
    await agent.stop()


async def test_a_full_journal_refuses_before_anything_is_taken(tmp_path):
    agent = Agent(tmp_path, max_size="1MiB")
    await agent.go(ONE)
    agent.sink.gate.clear()
    while agent.journal.stored < 2**20:
        await agent.send(1, spans=5000)
    with pytest.raises(Overloaded, match="the journal is full"):
        agent.send(1)
    with pytest.raises(Overloaded):
        agent.hand.next[Signal.TRACES].admit()
    agent.sink.gate.set()
    await until(lambda: agent.journal.entries == 0)
    await agent.stop()


async def test_one_tenants_backlog_does_not_keep_another_waiting(tmp_path):
    agent = Agent(tmp_path)
    await agent.go(ONE.replace("sink: }", "sink: {sending_queue: {queue_size: 8, num_consumers: 1}}}"))
    agent.sink.gate.clear()
    await asyncio.gather(*[agent.send(number, tenant="flood") for number in range(3000)])
    await asyncio.gather(*[agent.send(5000 + number, tenant="other") for number in range(20)])
    assert agent.journal.waiting > 3000
    agent.sink.gate.set()
    others = set(range(5000, 5020))
    await until(lambda: others <= set(numbers(agent.sink)))
    assert len(agent.sink.batches) < 500
    await until(lambda: agent.journal.entries == 0)
    await agent.stop()


@pytest.mark.parametrize("exporters", ["[sink]", "[sink, sink/2]"])
async def test_what_an_exporter_still_holds_when_a_reload_replaces_it_goes_to_the_new_one(tmp_path, exporters):
    agent = Agent(tmp_path)
    yaml = TWO.replace("[sink, sink/2]", exporters)
    old = await agent.go(yaml)
    agent.sink.gate.clear()
    for number in range(10):
        await agent.send(number)
    sink, agent.graph = agent.sink, None
    graph = Graph.build(plan(yaml.replace("sink: {", "sink: {label: B, ")), agent.environment, old)
    await graph.start()
    graph.adopt()
    await old.retire(graph, time.monotonic() + 0.05)
    agent.graph = graph
    await until(lambda: agent.journal.entries == 0)
    assert (sink.batches, sorted(numbers(agent.sink))) == ([], list(range(10)))
    assert agent.sums() == (10, [10, 0, 0, 0], 0)
    if "sink/2" in exporters:
        assert sorted(numbers(agent.sink_2)) == list(range(10)), "once each"
    await agent.stop()


class Allowance:
    def __init__(self):
        self.charged = []

    def charge(self, items, size):
        if items > 5:
            raise Overloaded("limit `items` is reached")
        self.charged.append(items)

    def refund(self, items, size):
        self.charged.remove(items)


async def test_a_request_is_charged_once_and_refunded_if_the_journal_refuses_it(tmp_path, monkeypatch):
    agent, allowance = Agent(tmp_path), Allowance()
    await agent.go(ONE)
    with pytest.raises(Overloaded):
        agent.send(1, spans=6, allowance=allowance)
    await agent.send(2, spans=2, allowance=allowance)
    assert allowance.charged == [2]
    with monkeypatch.context() as patch:

        def full(_request):
            raise Overloaded("the journal is full")

        patch.setattr(agent.journal, "append", full)
        with pytest.raises(Overloaded, match="full"):
            agent.send(3, spans=3, allowance=allowance)
    assert allowance.charged == [2]
    await agent.stop()
    await agent.die()
