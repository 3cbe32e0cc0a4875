"""A whole graph whose sink accepts nothing for a while, with one tenant that sends until it is refused."""

from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from tests.kit.graphs import Running, until
from tests.kit.otlp import delimited
from tests.pipeline.test_intake import Agent

GRAPH = """
receivers: {hand: }
processors: {batch: {timeout: 10ms, send_batch_bytes: 64KiB}}
exporters: {sink: {sending_queue: {queue_size: 100, max_bytes: 1MiB, num_consumers: 4}, timeout: 60}}
service: {pipelines: {traces: {receivers: [hand], processors: [batch], exporters: [sink]}}}
"""


def a_batch(tenant: str, size: int = 10_000) -> Batch:
    body = delimited(1, delimited(2, delimited(2, b"\x2a" + bytes([0x80 | size & 0x7F, size >> 7]) + b"x" * size)))
    return Batch(Signal.TRACES, body, 1, Origin("hand", "http", tenant), ((Receipt(1), 1),))


async def flood(send, most: int = 5000) -> ConsumeError:
    """Send until a request is refused; return the refusal."""
    for number in range(most):
        try:
            await send()
        except ConsumeError as refusal:
            return refusal
        if not number % 5:
            await asyncio.sleep(0.001)  # the batch processor forwards meanwhile
    raise AssertionError("nothing stops it")


@pytest.mark.parametrize("loud", [1, 3])
async def test_without_a_journal_the_requests_of_another_tenant_are_accepted_and_delivered_first(loud):
    running = Running()
    await running.go(GRAPH)
    running.sink.gate.clear()
    entry = running.hand.next[Signal.TRACES]

    async def send(tenant):
        entry.consume(a_batch(tenant))

    for number in range(loud):
        refusal = await flood(lambda tenant=f"loud{number}": send(tenant))
        assert isinstance(refusal, Overloaded)
        assert refusal.tenant == f"loud{number}"
        entry.admit()
    for _ in range(10):
        await send("quiet")
        await asyncio.sleep(0.02)
    running.sink.gate.set()
    await until(lambda: sum(batch.items for batch in running.sink.batches if batch.origin.tenant == "quiet") == 10)
    last = max(place for place, batch in enumerate(running.sink.batches) if batch.origin.tenant == "quiet")
    before = sum(len(batch.body) for batch in running.sink.batches[:last] if batch.origin.tenant != "quiet")
    assert before < (3 * loud + 4) * 80_000, "a few rounds of 64 KiB, and the sends that were under way"
    await running.stop()


async def test_when_the_agent_itself_is_full_a_tenant_is_told_so():
    running = Running()
    await running.go(GRAPH)
    running.sink.gate.clear()
    entry = running.hand.next[Signal.TRACES]

    async def send(tenant):
        entry.consume(a_batch(tenant))

    refusal = await flood(lambda: send(""))
    assert isinstance(refusal, Overloaded)

    async def slowly():
        await send("shop")
        await asyncio.sleep(0.02)  # the batch processor offers it to the full queue

    refusal = await flood(slowly)
    assert isinstance(refusal, RetryableError)
    assert not isinstance(refusal, Overloaded)
    running.sink.gate.set()
    await running.stop()


async def test_with_a_journal_another_tenant_is_accepted_and_not_behind_the_backlog(tmp_path):
    agent = Agent(tmp_path, max_size="8MiB")
    await agent.go(GRAPH)
    agent.sink.gate.clear()
    entry = agent.hand.next[Signal.TRACES]
    answers = []

    async def send(tenant):
        answers.append(entry.consume(a_batch(tenant), "yes"))
        if len(answers) % 20 == 0:
            await asyncio.gather(*answers[-20:])

    refusal = await flood(lambda: send("loud"))
    assert (refusal.tenant, refusal.reason) == ("loud", "tenant_journal_full")
    for _ in range(10):
        await send("quiet")
    assert await asyncio.gather(*answers) == ["yes"] * len(answers)
    agent.sink.gate.set()
    await until(lambda: sum(batch.items for batch in agent.sink.batches if batch.origin.tenant == "quiet") == 10)
    last = max(place for place, batch in enumerate(agent.sink.batches) if batch.origin.tenant == "quiet")
    before = sum(batch.items for batch in agent.sink.batches[:last] if batch.origin.tenant == "loud")
    assert before < 0.9 * (len(answers) - 10), "a part of the backlog comes later"
    await until(lambda: agent.journal.entries == 0)
    assert (agent.journal._entry_store.used, len(agent.journal._entry_store.use)) == (0, 0)
    await agent.stop()
