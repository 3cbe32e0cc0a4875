from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.sending.fair_queue import IDLE_TENANTS, QUANTUM, FairQueue
from otelwp_agent.sending.queued_batch import QueuedBatch
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import Destination, a_request, a_sender, outcomes

SIZES = [1, 500, 20_000, QUANTUM, 3 * QUANTUM]


def put(lines: FairQueue, tenant: str, size: int) -> QueuedBatch:
    line = lines.of(tenant)
    entry = QueuedBatch(a_request("a"), 1, size, line)
    line.size += 1
    line.bytes += size
    lines.append(entry)
    return entry


def take(lines: FairQueue) -> QueuedBatch:
    entry = lines.take()
    entry.tenant_queue.size -= 1
    entry.tenant_queue.bytes -= entry.bytes
    return entry


def test_one_tenant_alone_is_first_in_first_out():
    lines = FairQueue()
    entries = [put(lines, "a", 100_000) for _ in range(5)]
    assert [take(lines) for _ in range(5)] == entries
    assert not lines.ring


def test_tenants_send_the_same_bytes_whatever_the_size_of_their_batches():
    lines, sent = FairQueue(), Counter()
    for _ in range(3000):
        put(lines, "small", 1000)
    for _ in range(100):
        put(lines, "large", 200_000)
    while sum(sent.values()) < 5_000_000:
        entry = take(lines)
        sent[entry.tenant_queue.tenant] += entry.bytes
    assert abs(sent["small"] - sent["large"]) <= 2 * QUANTUM + 200_000


def test_who_comes_last_waits_for_no_more_than_one_round():
    lines = FairQueue()
    for tenant in "abc":
        for _ in range(1000):
            put(lines, tenant, 30_000)
    for _ in range(500):
        take(lines)
    late = put(lines, "late", 30_000)
    order = [take(lines) for _ in range(3 * 4)]
    assert late in order


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(SIZES)) | st.none(), max_size=200))
def test_nothing_is_lost_and_nobody_waits_for_ever(steps):
    """What each other line sends while one waits for its first entry is bounded, and everything comes out in order."""
    lines = FairQueue()
    waiting: dict[str, list[QueuedBatch]] = {tenant: [] for tenant in "abcd"}
    passed: dict[str, Counter[str]] = {tenant: Counter() for tenant in "abcd"}

    def take_one() -> None:
        entry = take(lines)
        tenant = entry.tenant_queue.tenant
        assert waiting[tenant].pop(0) is entry
        passed[tenant].clear()
        for other, queue in waiting.items():
            if other != tenant and queue:
                passed[other][tenant] += entry.bytes
                assert passed[other][tenant] <= queue[0].bytes + 2 * QUANTUM + max(SIZES)

    for step in steps:
        if step is not None:
            waiting[step[0]].append(put(lines, *step))
        elif lines.ring:
            take_one()
        assert len(lines) == sum(map(len, waiting.values()))
    while lines.ring:
        take_one()
    assert not any(waiting.values())
    assert list(lines) == []


def test_lines_of_tenants_that_hold_nothing_are_forgotten_when_there_are_many():
    lines = FairQueue()
    held = put(lines, "held", 1)
    lines.take()  # it is being sent
    for number in range(3 * IDLE_TENANTS):
        put(lines, str(number), 1)
        take(lines)
    assert len(lines._tenants) <= IDLE_TENANTS + 1
    assert lines.of("held") is held.tenant_queue


def order(lines: FairQueue, number: int) -> str:
    return "".join(take(lines).tenant_queue.tenant for _ in range(number))


def test_tenants_take_turns_in_the_order_in_which_they_came():
    lines = FairQueue()
    for tenant in "abc" * 3:
        put(lines, tenant, QUANTUM)
    assert order(lines, 9) == "abc" * 3


def test_a_batch_of_exactly_a_quantum_needs_one_turn():
    lines = FairQueue()
    for tenant, size in (("a", QUANTUM), ("a", 1), ("b", QUANTUM)):
        put(lines, tenant, size)
    assert order(lines, 3) == "aba"


def test_what_a_tenant_has_sent_alone_is_not_counted_against_it():
    lines = FairQueue()
    put(lines, "a", QUANTUM // 2)
    put(lines, "a", QUANTUM)
    take(lines)
    put(lines, "b", QUANTUM)
    assert order(lines, 2) == "ab"


def test_a_tenant_with_bytes_and_no_units_holds_something():
    lines = FairQueue()
    empty, other = lines.of("empty"), lines.of("idle")
    empty.bytes = 200
    assert list(lines) == [empty]
    other.size = 1
    assert list(lines) == [empty, other]


def test_no_more_lines_are_kept_than_there_may_be():
    lines = FairQueue()
    for number in range(IDLE_TENANTS):
        lines.of(str(number))
    assert len(lines._tenants) == IDLE_TENANTS
    lines.of("another")
    assert len(lines._tenants) == 1


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


class TestInASender:
    def test_a_flood_neither_delays_nor_refuses_another_tenant(self, loop):
        """One sends 1 000 batches at once, another 10: they leave within the first 20 sends, and none is refused."""

        async def slow(_: list[str]) -> int:
            await asyncio.sleep(1)
            return 0

        exporter = Destination(slow, loop.time)
        sender = a_sender(exporter, Queue(num_consumers=1, queue_size=1000))
        flood = [a_request(f"flood{number}", padding=40_000, tenant="loud") for number in range(1000)]
        quiet = [a_request(f"quiet{number}", padding=40_000, tenant="quiet") for number in range(10)]
        refused = Counter()

        async def scenario():
            await sender.start()
            for batch in (*flood, *quiet):
                try:
                    sender.consume(batch)
                except Overloaded as error:
                    refused[batch.origin.tenant, error.reason] += 1
            await asyncio.sleep(30)
            await sender.shutdown()

        loop.run_until_complete(scenario())
        assert all(outcomes(batch) == [(1, 0, "")] for batch in quiet)
        places = [place for place, (_, names) in enumerate(exporter.tries) if names[0].startswith("quiet")]
        assert len(places) == 10
        assert max(places) < 22
        assert set(refused) == {("loud", "tenant_queue_full")}

    def test_the_byte_room_is_shared_too_and_a_thousand_small_batches_fit(self, loop):
        sender = a_sender(Destination(None, loop.time), Queue(queue_size=2000, max_bytes="1MiB"))
        for _ in range(1000):
            sender.consume(a_request("a", tenant="loud"))
        with pytest.raises(Overloaded, match="tenant loud fills its share of the sending queue of test/one"):
            sender.consume(a_request("b", tenant="loud", padding=400_000))
        sender.consume(a_request("c", tenant="quiet", padding=400_000))
        loop.run_until_complete(sender.shutdown())

    def test_one_batch_above_its_share_gets_in_when_the_tenant_holds_nothing(self, loop):
        sender = a_sender(Destination(None, loop.time), Queue(max_bytes="1MiB"))
        sender.consume(a_request("a", tenant="quiet"))
        sender.consume(a_request("b", tenant="large", padding=600_000))
        with pytest.raises(Overloaded):
            sender.consume(a_request("c", tenant="large"))
        loop.run_until_complete(sender.shutdown())

    @pytest.mark.parametrize(("tenant", "share", "room"), [("", 0.5, 10), ("a", 0.5, 5), ("a", 0.2, 2), ("a", 1, 10)])
    def test_the_share_is_configurable_and_who_has_no_name_has_all(self, loop, tenant, share, room):
        sender = a_sender(Destination(None, loop.time), Queue(queue_size=10, max_tenant_share=share))
        for _ in range(room):
            sender.consume(a_request("a", tenant=tenant))
        with pytest.raises(Overloaded):
            sender.consume(a_request("a", tenant=tenant))
        loop.run_until_complete(sender.shutdown())

    def test_parts_and_retries_stay_with_their_tenant(self, loop):
        """A tenant whose batches are split, hunted through and retried gets no more turns for that."""

        async def answer(names: list[str]) -> int:
            await asyncio.sleep(0.01)
            if len(names) > 1:
                raise MalformedError("400")
            if names[0].startswith("busy") and loop.time() < 3:
                raise RetryableError("busy")
            return 0

        exporter = Destination(answer, loop.time)
        sender = a_sender(exporter, Queue(num_consumers=1))
        size = {"padding": QUANTUM}
        bad = [
            merge([a_request(f"busy{batch}.{part}", tenant="bad", **size) for part in range(4)]) for batch in range(10)
        ]
        good = [a_request(f"good{number}", tenant="good", **size) for number in range(30)]

        async def scenario():
            await sender.start()
            for batch in (*bad, *good):
                sender.consume(batch)
            await asyncio.sleep(120)
            drained = await sender.drain(loop.time())
            assert drained.left == 0

        loop.run_until_complete(scenario())
        assert all(outcomes(batch) == [(1, 0, "")] * 4 for batch in bad)
        weights = [(names[0][:4], len(names)) for _, names in exporter.tries]
        before = sum(weight for name, weight in weights[: weights.index(("good", 1))] if name == "busy")
        assert before <= 4
        last = len(weights) - 1 - weights[::-1].index(("good", 1))
        among = sum(weight for name, weight in weights[:last] if name == "busy")
        assert among <= 30 + 4 + 1  # a quantum for each of the good ones, one batch, one quantum
