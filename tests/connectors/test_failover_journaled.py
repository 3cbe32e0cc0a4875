"""A failover behind a real journal."""

from __future__ import annotations

import time

import structlog

from otelwp_agent.config.service import JournalConfig
from otelwp_agent.errors import RetryableError
from otelwp_agent.journal.journal import Journal
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.intake import Intake
from tests.connectors.test_failover import GRAPH
from tests.kit.graphs import Running, until


class Journaled:
    """A running graph with a journal in a directory."""

    def __init__(self, directory):
        self.running = Running()
        environment = self.running.environment
        self.journal = Journal(
            JournalConfig(directory=str(directory)), environment.ledgers, self.running.registry, structlog.get_logger()
        )
        self.journal.open()
        environment.intake = self.intake = Intake(self.journal, environment.ledgers, environment.log)

    async def start(self):
        await self.running.go(GRAPH)
        self.intake.start()

    async def receive(self, number):
        for _ in range(number):
            receipt = Receipt(1)
            batch = Batch(Signal.TRACES, b"\n\x04\x12\x02\x12\x00", 1, Origin("hand", "hand"), ((receipt, 1),))
            await self.running.hand.next[Signal.TRACES].consume(batch)

    async def stop(self):
        drained = await self.running.graph.retire(None, time.monotonic())
        self.intake.stop()
        await self.journal.close()
        return drained


async def test_what_moves_is_released_from_the_journal_and_what_waits_at_a_stop_stays_there(tmp_path):
    one = Journaled(tmp_path)
    await one.start()
    first, second = one.running.sink_first, one.running.sink_second
    first.error = RetryableError("away")
    await one.receive(10)
    await until(lambda: len(second.batches) == 10)
    await until(lambda: not one.journal.entries)
    second.error = RetryableError("away")
    await one.receive(10)
    await until(lambda: second.failed > 0)
    drained = await one.stop()
    assert (drained.delivered, drained.left) == (0, 0)
    heads = one.running.graph.heads
    assert all(head.total.settled[3] == 0 for head in heads.values())

    two = Journaled(tmp_path)
    await two.start()
    await until(lambda: len(two.running.sink_first.batches) == 10)
    await until(lambda: not two.journal.entries)
    assert not two.running.sink_second.batches
    await two.stop()
