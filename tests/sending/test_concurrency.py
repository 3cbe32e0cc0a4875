from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import RetryableError
from otelwp_agent.sending.concurrency import MEMORY, Concurrency
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import Destination, a_request, a_sender, hang

KIB = 1024


def rounds(limit: Concurrency, latency: float, number: int, *, start: float = 0, size: int = KIB) -> float:
    """Let `number` rounds of as many sends as allowed take `latency` each; return when the last has ended."""
    now = start
    for _ in range(number):
        for _ in range(limit.limit):
            limit.succeeded(now, now + latency, size, busy=True)
        now += latency
    return now


def test_begins_with_the_most_and_stays_there_while_all_goes_well():
    limit = Concurrency(1, 10)
    assert limit.limit == 10
    rounds(limit, 0.2, 100)
    assert limit.limit == 10


def test_failures_halve_it_down_to_the_least():
    limit, seen = Concurrency(2, 20), []
    for now in range(6):
        limit.failed(now, now + 0.5)
        seen.append(limit.limit)
    assert seen == [10, 5, 2, 2, 2, 2]


def test_what_fails_together_halves_it_once():
    limit = Concurrency(1, 16)
    for _ in range(16):
        limit.failed(0, 3)
    assert limit.limit == 8


def test_each_good_round_allows_one_more():
    limit = Concurrency(1, 16)
    for now in range(4):
        limit.failed(now, now + 0.5)
    assert limit.limit == 1
    now, seen = 10.0, []
    for _ in range(30):
        now = rounds(limit, 0.01, 1, start=now)
        seen.append(limit.limit)
    assert seen == sorted(seen)
    assert all(after - before <= 1 for before, after in pairwise(seen))
    assert seen[-1] == 16


def test_what_is_not_used_does_not_grow():
    limit = Concurrency(1, 16)
    limit.failed(0, 1)
    for now in range(2, 1000):
        limit.succeeded(now, now + 0.01, KIB, busy=False)
    assert limit.limit == 8


def test_latency_well_above_its_floor_halves_it_and_it_comes_back():
    limit = Concurrency(1, 10)
    now = rounds(limit, 0.05, 10)
    now = rounds(limit, 0.19, 10, start=now)
    assert limit.limit == 10  # less than twice the floor and 100 ms
    now = rounds(limit, 2.0, 8, start=now)
    assert limit.limit == 1
    rounds(limit, 0.05, 60, start=now)
    assert limit.limit == 10


def test_now_and_then_a_slow_one_changes_nothing():
    limit = Concurrency(1, 10)
    for now in range(200):
        limit.succeeded(now, now + (3 if now % 5 == 0 else 0.01), KIB, busy=True)
    assert limit.limit == 10


def test_large_bodies_are_not_compared_with_small_ones():
    limit = Concurrency(1, 10)
    for now in range(200):
        limit.succeeded(now, now + 0.001, 100, busy=True)
        limit.succeeded(now, now + 1.0, 4_000_000, busy=True)
    assert limit.limit == 10


def test_a_backend_that_is_slow_for_good_gets_its_sends_back():
    limit = Concurrency(1, 10)
    now = rounds(limit, 0.01, 5)
    now = rounds(limit, 1.0, 10, start=now)
    assert limit.limit == 1
    rounds(limit, 1.0, int(2 * MEMORY) + 60, start=now)
    assert limit.limit == 10


def test_slow_sends_that_are_few_are_no_sign_of_too_many():
    limit = Concurrency(1, 10)
    limit.succeeded(0, 0.01, KIB, busy=False)
    for now in range(1, 50):
        limit.succeeded(now, now + 5, KIB, busy=False)
    assert limit.limit == 10


def slow(limit: Concurrency, now: float) -> int:
    limit.succeeded(now, now + 1.0, KIB, busy=True)
    return limit.limit


def fast(limit: Concurrency, now: float) -> int:
    limit.succeeded(now, now + 0.01, KIB, busy=True)
    return limit.limit


def test_the_fourth_slow_send_in_a_row_halves_it_and_then_four_more_are_needed():
    limit = Concurrency(1, 16)
    fast(limit, 0.0)
    assert [slow(limit, 10.0 + 2 * number) for number in range(8)] == [16, 16, 16, 8, 8, 8, 8, 4]


def test_a_fast_send_among_slow_ones_counts_a_fifth():
    limit = Concurrency(1, 16)
    fast(limit, 0.0)
    assert [slow(limit, 10.0 + number) for number in (0, 2, 4)] == [16, 16, 16]
    assert fast(limit, 16.0) == 16
    assert slow(limit, 18.0) == 8


def test_slow_sends_of_long_ago_do_not_count():
    for between in range(40):
        limit = Concurrency(1, 16)
        fast(limit, 0.0)
        slow(limit, 1.0)
        for number in range(between):
            fast(limit, 3.0 + number)
        assert slow(limit, 50.0) == 16


def test_a_send_that_takes_exactly_what_is_allowed_is_not_slow():
    limit = Concurrency(1, 16)
    limit.succeeded(0.0, 0.05, KIB, busy=True)
    for _ in range(20):
        limit.succeeded(0.0, 0.2, KIB, busy=True)
    assert limit.limit == 16


def test_a_send_that_begins_when_the_limit_was_halved_may_halve_it_again():
    limit = Concurrency(1, 16)
    limit.failed(0.0, 3.0)
    limit.failed(2.9, 4.0)
    assert limit.limit == 8
    limit.failed(3.0, 4.0)
    assert limit.limit == 4


def test_a_floor_is_remembered_for_more_than_a_minute():
    limit = Concurrency(1, 16)
    limit.succeeded(0.0, 0.0, KIB, busy=True)
    for now in (MEMORY, 2 * MEMORY):
        limit.succeeded(now, now, 1, busy=True)
    for number in range(4):
        limit.succeeded(2 * MEMORY + number, 2 * MEMORY + number + 0.5, KIB, busy=True)
    assert limit.limit == 8


@given(
    st.integers(1, 5),
    st.integers(5, 40),
    st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(0, 2**39), st.booleans()), max_size=200),
)
def test_it_never_leaves_its_bounds(least, most, sends):
    limit, now = Concurrency(least, most), 0.0
    for well, latency, size, busy in sends:
        if well:
            limit.succeeded(now, now + latency, size, busy=busy)
        else:
            limit.failed(now, now + latency)
        now += latency / 2
        assert least <= limit.limit <= most


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


def test_a_sender_sends_no_more_at_once_than_the_other_side_bears(loop):
    under_way, most, answered = 0, 0, 0

    async def overwhelmed_by_three(_: list[str]) -> int:
        nonlocal under_way, most, answered
        under_way += 1
        if loop.time() > 100:
            most = max(most, under_way)
        too_many = under_way > 3
        await asyncio.sleep(1)
        under_way -= 1
        if too_many:
            raise RetryableError("busy")
        answered += 1
        return 0

    exporter = Destination(overwhelmed_by_three, loop.time)
    sender = a_sender(exporter, Queue(num_consumers=10))

    async def scenario():
        await sender.start()
        for number in range(600):
            sender.consume(a_request(str(number)))
        await asyncio.sleep(200)
        tries, well = len(exporter.tries), answered
        assert sender.health().details["concurrency"] < 6
        assert exporter.metric("otelwp_exporter_concurrency", data_type="traces") < 6
        await sender.shutdown()
        return tries, well

    tries, well = loop.run_until_complete(scenario())
    assert most <= 5
    assert well > 0.7 * tries


def test_the_least_being_the_most_switches_it_off(loop):
    async def busy(_: list[str]) -> int:
        await asyncio.sleep(1)
        raise RetryableError("busy")

    exporter = Destination(busy, loop.time)
    sender = a_sender(exporter, Queue(num_consumers=4, min_concurrency=4))

    async def scenario():
        await sender.start()
        for number in range(8):
            sender.consume(a_request(str(number)))
        await asyncio.sleep(1.5)
        tries = exporter.times
        await sender.shutdown()
        return tries

    assert loop.run_until_complete(scenario()) == [0] * 4 + [1] * 4


def test_a_slow_exporter_takes_nothing_from_another(loop):
    async def quick(_: list[str]) -> int:
        await asyncio.sleep(0.01)
        return 0

    def delivered_within_a_second(*others: Destination) -> float:
        exporter = Destination(quick, loop.time)
        senders = [a_sender(each, timeout=0) for each in (*others, exporter)]

        async def scenario():
            for sender in senders:
                await sender.start()
            for number in range(1000):
                for sender in senders:
                    sender.consume(a_request(str(number)))
            await asyncio.sleep(0.505)
            sent = exporter.metric("otelcol_exporter_sent_spans")
            for sender in senders:
                await sender.shutdown()
            return sent

        return loop.run_until_complete(scenario())

    async def busy(_: list[str]) -> int:
        raise RetryableError("busy")

    alone = delivered_within_a_second()
    stalled, failing = Destination(hang, loop.time), Destination(busy, loop.time)
    assert delivered_within_a_second(stalled, failing) == alone == 500
    assert len(stalled.tries) == 10


def test_batches_that_wait_for_their_next_try_keep_nobody_from_sending_others(loop):
    async def poisoned(names: list[str]) -> int:
        if names[0].startswith("bad"):
            raise RetryableError("busy")
        return 0

    exporter = Destination(poisoned, loop.time)
    sender = a_sender(exporter, Queue(num_consumers=2))

    async def scenario():
        await sender.start()
        for number in range(10):
            for name in ("bad", "good"):
                sender.consume(a_request(f"{name}{number}"))
        await asyncio.sleep(1)
        sent = exporter.metric("otelcol_exporter_sent_spans")
        await sender.shutdown()
        return sent

    assert loop.run_until_complete(scenario()) == 10
