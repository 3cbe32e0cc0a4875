from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.config.blocks import CircuitBreaker, Queue, Retry
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.breaker import Breaker, Permit, State
from otelwp_agent.sending.metrics import breaker_of
from otelwp_agent.sending.sender import Sender
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import EXACT, Destination, a_request, a_sender, outcomes, scripted

CLOSED, HALF_OPEN, OPEN = State.CLOSED, State.HALF_OPEN, State.OPEN
TRY, PROBE, NONE = Permit.TRY, Permit.PROBE, Permit.NONE


def a_breaker(random: float = 0.5, told: list[State] | None = None, **settings: object) -> Breaker:
    return Breaker(CircuitBreaker(**settings), lambda: random, (told if told is not None else []).append)


def an_open_one(**options: object) -> Breaker:
    breaker = a_breaker(**options)
    for _ in range(5):
        breaker.failed(TRY, 100)
    assert breaker.state is OPEN
    return breaker


def test_opens_after_failures_in_a_row_and_not_before():
    breaker = a_breaker(failures=3)
    for outcome in [False, False, True, False, False]:
        breaker.answered() if outcome else breaker.failed(TRY, 0)
        assert breaker.acquire(0) is TRY
    breaker.failed(TRY, 0)
    assert breaker.state is OPEN
    assert breaker.acquire(4.9) is NONE


def test_lets_one_probe_through_when_its_time_is_over():
    breaker = an_open_one()
    assert breaker.until == 105
    assert breaker.acquire(104.9) is NONE
    assert [breaker.acquire(105), breaker.acquire(105), breaker.acquire(1e9)] == [PROBE, NONE, NONE]
    assert breaker.until == float("inf")
    breaker.answered()
    assert (breaker.state, breaker.calm, breaker.acquire(105)) == (CLOSED, True, TRY)


def test_stays_open_twice_as_long_each_time_that_a_probe_fails_and_starts_anew_once_answered():
    breaker, now, waits = an_open_one(), 100.0, []
    for _ in range(5):
        waits.append(breaker.until - now)
        now = breaker.until
        breaker.failed(breaker.acquire(now), now)
    assert waits == [5, 10, 20, 30, 30]
    breaker.acquire(breaker.until)
    breaker.answered()
    for _ in range(5):
        breaker.failed(TRY, 1000)
    assert breaker.until == 1005


@pytest.mark.parametrize(("random", "wait"), [(0, 4), (0.5, 5), (1, 6)])
def test_leaves_a_fifth_to_chance(random, wait):
    assert an_open_one(random=random).until == 100 + wait


def test_stays_open_at_least_as_long_as_the_other_side_says():
    breaker = a_breaker(failures=1)
    breaker.failed(TRY, 0, retry_after=77)
    assert breaker.until == 77


def test_the_other_sides_word_holds_for_an_hour_at_most():
    throttled, failed, year = a_breaker(), a_breaker(failures=1), 365 * 86400
    throttled.throttled(0, year)
    failed.failed(TRY, 0, year)
    assert (throttled.until, failed.until) == (3600, 3600)


def test_tries_from_before_it_opened_tell_nothing_unless_they_are_answered():
    breaker = an_open_one()
    breaker.failed(TRY, 104, retry_after=1000)
    assert breaker.until == 105
    assert breaker.acquire(105) is PROBE
    breaker.failed(TRY, 106)
    assert breaker.state is HALF_OPEN
    breaker.answered()
    assert breaker.state is CLOSED


def test_a_throttled_one_is_alive_and_waits():
    breaker = a_breaker()
    for _ in range(100):
        breaker.throttled(0, 7)
    assert (breaker.state, breaker.calm) == (CLOSED, False)
    assert [breaker.acquire(6.9), breaker.acquire(7)] == [NONE, TRY]
    assert breaker.calm


def test_a_throttled_probe_closes_it_and_waits():
    breaker = an_open_one()
    breaker.acquire(105)
    breaker.throttled(105, 60)
    assert (breaker.state, breaker.acquire(164), breaker.acquire(165)) == (CLOSED, NONE, TRY)


def test_an_answer_does_not_end_a_throttling():
    breaker = a_breaker()
    breaker.throttled(0, 7)
    breaker.answered()
    assert breaker.acquire(3) is NONE


def test_throttled_without_a_time_goes_on():
    breaker = a_breaker()
    breaker.throttled(0, None)
    assert breaker.calm
    assert breaker.acquire(0) is TRY


def test_a_probe_that_tells_nothing_is_made_again():
    breaker = an_open_one()
    breaker.released(breaker.acquire(105), 106)
    assert breaker.acquire(106) is PROBE


def test_in_a_hurry_it_waits_for_nothing_but_the_probe():
    breaker = an_open_one()
    assert [breaker.acquire(100, hurry=True), breaker.acquire(100, hurry=True)] == [PROBE, NONE]
    breaker.throttled(100, 9)
    assert breaker.acquire(100, hurry=True) is TRY
    assert breaker.acquire(100) is NONE


def test_one_that_is_off_never_opens_but_keeps_the_other_sides_word():
    breaker = a_breaker(enabled=False)
    for _ in range(100):
        breaker.failed(TRY, 0)
    assert breaker.calm
    breaker.throttled(0, 7)
    assert breaker.acquire(1) is NONE


def test_tells_each_change_once():
    told: list[State] = []
    breaker, calls = an_open_one(told=told), []
    breaker.listeners.append(lambda: calls.append(breaker.state))
    breaker.failed(breaker.acquire(105), 105)
    breaker.acquire(breaker.until)
    breaker.answered()
    breaker.answered()
    assert told == [OPEN, HALF_OPEN, OPEN, HALF_OPEN, CLOSED]
    assert calls == [OPEN, CLOSED]


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "throttle", "nothing"]), st.floats(0, 50)), max_size=60))
def test_it_never_locks_up_and_never_lets_two_probes_through(steps):
    breaker, now, out = a_breaker(failures=2), 0.0, []
    for what, later in steps:
        now += later
        permit = breaker.acquire(now)
        if permit is not NONE:
            out.append(permit)
        assert out.count(PROBE) <= 1
        if not out:
            assert now < breaker.until < float("inf")
            continue
        permit = out.pop(0)
        if what == "ok":
            breaker.answered()
        elif what == "fail":
            breaker.failed(permit, now)
        elif what == "throttle":
            breaker.throttled(now, 3)
        else:
            breaker.released(permit, now)
        if breaker.calm:
            assert breaker.acquire(now) is TRY


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


class TestInASender:
    """What a breaker does for the queue before it."""

    def run(self, loop, answer, batches, until: float, queue: Queue | None = None, **options: object) -> Destination:
        exporter = Destination(answer, loop.time)
        sender = a_sender(exporter, queue or Queue(num_consumers=1), **options)

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            await asyncio.sleep(until)
            self.health, tries = sender.health(), exporter.tries
            exporter.tries = []  # a stop may try once more
            await sender.shutdown()
            exporter.tries = tries

        loop.run_until_complete(scenario())
        return exporter

    def test_a_dead_backend_costs_one_try_per_open_time_however_much_waits(self, loop):
        async def dead(_: list[str]) -> int:
            raise RetryableError("refused")

        batches = [a_request(str(number)) for number in range(100)]
        exporter = self.run(loop, dead, batches, until=124)
        assert exporter.times == [0, 0, 0, 0, 0, 5, 15, 35, 65, 95]
        assert self.health.details["breaker"] == "open"
        assert self.health.details["queue_size"] == 100

    def test_each_probe_is_another_batch(self, loop):
        async def dead(_: list[str]) -> int:
            raise RetryableError("refused")

        exporter = self.run(loop, dead, [a_request(str(number)) for number in range(9)], until=36)
        assert [names for _, names in exporter.tries] == [[str(number)] for number in range(8)]

    def test_comes_back_by_itself_and_sends_everything_once(self, loop):
        async def back_at_40(_: list[str]) -> int:
            if loop.time() < 40:
                raise RetryableError("refused")
            return 0

        batches = [a_request(str(number)) for number in range(100)]
        exporter = self.run(loop, back_at_40, batches, until=66)
        assert all(outcomes(batch) == [(1, 0, "")] for batch in batches)
        assert len(exporter.tries) == 5 + 3 + 100
        assert self.health.healthy

    def test_once_back_it_sends_as_many_at_once_as_before(self, loop):
        async def back_at_7(_: list[str]) -> int:
            if loop.time() < 7:
                raise RetryableError("refused")
            await asyncio.sleep(1)
            return 0

        batches = [a_request(str(number)) for number in range(50)]
        exporter = self.run(loop, back_at_7, batches, until=20, queue=Queue(num_consumers=5, min_concurrency=5))
        assert exporter.times.count(15) == 1
        assert exporter.times.count(16) == 5

    def test_throttling_holds_all_batches_without_opening(self, loop):
        batches = [a_request(str(number)) for number in range(10)]
        exporter = self.run(loop, scripted(Overloaded("busy", retry_after=30)), batches, until=29)
        assert exporter.times == [0]
        assert self.health.details["breaker"] == "closed"
        assert self.health.details["next_try_in_seconds"] == 1

    def test_a_refusal_for_good_is_a_sign_of_life(self, loop):
        answers = [RetryableError("busy")] * 4 + [MalformedError("400")] + [RetryableError("busy")] * 4
        batches = [a_request(str(number)) for number in range(9)]
        exporter = self.run(loop, scripted(*answers), batches, until=1)
        assert exporter.times == [0] * 9
        assert self.health.details["breaker"] == "closed"

    def test_a_bug_in_the_exporter_as_a_probe_gives_the_permit_back(self, loop):
        answers = [RetryableError("busy")] * 5 + [ZeroDivisionError()]
        batches = [a_request(str(number)) for number in range(7)]
        exporter = self.run(loop, scripted(*answers), batches, until=6)
        assert exporter.times == [0] * 5 + [5] + [5] * 6  # the five are due again, too
        assert outcomes(batches[5]) == [(0, 1, "internal_error")]

    def test_can_be_switched_off(self, loop):
        retry = Retry(randomization_factor=0, circuit_breaker={"enabled": False})
        answers = [RetryableError("busy")] * 30
        exporter = self.run(loop, scripted(*answers), [a_request(str(number)) for number in range(9)], 1, retry=retry)
        assert exporter.times == [0] * 9

    def test_all_signals_of_an_exporter_share_it(self, loop):
        async def dead(_: list[str]) -> int:
            if loop.time() < 7:
                raise RetryableError("refused")
            return 0

        exporter = Destination(dead, loop.time)
        breaker = breaker_of(exporter.context, EXACT, lambda: 0.5)
        options = {"queue": Queue(num_consumers=1), "retry": EXACT, "timeout": 5, "breaker": breaker}
        senders = [Sender(exporter, signal, **options) for signal in (Signal.TRACES, Signal.LOGS)]

        async def scenario():
            for sender in senders:
                await sender.start()
            for number in range(5):
                senders[0].consume(a_request(str(number)))
            await asyncio.sleep(1)
            senders[1].consume(a_request("other"))
            await asyncio.sleep(3)
            assert senders[1].health().details["breaker"] == "open"
            assert len(exporter.tries) == 5
            await asyncio.sleep(12)
            drained = [await sender.drain(loop.time()) for sender in senders]
            assert [each.left for each in drained] == [0, 0]

        loop.run_until_complete(scenario())
        assert exporter.times[5:] == [5] + [15] * 6
        assert breaker.listeners == []

    @pytest.mark.parametrize("dead_first", [True, False])
    def test_a_signal_that_is_refused_alone_does_not_stop_the_others_for_good(self, loop, dead_first):
        async def answer(names: list[str]) -> int:
            if names[0].startswith("dead"):
                raise RetryableError("refused")
            return 0

        exporter = Destination(answer, loop.time)
        breaker = breaker_of(exporter.context, EXACT, lambda: 0.5)
        options = {"queue": Queue(), "retry": EXACT, "timeout": 5, "breaker": breaker}
        senders = [Sender(exporter, signal, **options) for signal in (Signal.TRACES, Signal.LOGS)]
        dead, alive = senders if dead_first else reversed(senders)
        batches = [a_request(f"alive{number}") for number in range(20)]

        async def scenario():
            for sender in senders:
                await sender.start()
            for number in range(100):
                dead.consume(a_request(f"dead{number}"))
            await asyncio.sleep(1)
            assert breaker.state is OPEN
            await asyncio.sleep(15)
            for batch in batches:
                alive.consume(batch)
            await asyncio.sleep(31)
            arrived = [outcomes(batch) for batch in batches]
            for sender in senders:
                await sender.shutdown()
            return arrived

        assert loop.run_until_complete(scenario()) == [[(1, 0, "")]] * 20

    @pytest.mark.parametrize(("well", "delivered", "tries"), [(True, 20, 20), (False, 0, 1)])
    def test_a_drain_probes_at_once_and_gives_up_if_that_fails(self, loop, well, delivered, tries):
        async def answer(_: list[str]) -> int:
            if loop.time() < 2 or not well:
                raise RetryableError("refused")
            return 0

        exporter = Destination(answer, loop.time)
        sender = a_sender(exporter)

        async def scenario():
            await sender.start()
            for number in range(20):
                sender.consume(a_request(str(number)))
            await asyncio.sleep(3)
            before = len(exporter.tries)
            drained = await sender.drain(loop.time() + 30)
            return drained, len(exporter.tries) - before

        drained, tried = loop.run_until_complete(scenario())
        assert loop.time() == 3
        assert (drained.delivered, drained.left, tried) == (delivered, 20 - delivered, tries)


def test_it_is_calm_as_long_as_there_is_nothing_to_ask_and_nothing_to_report():
    breaker = a_breaker(failures=2)
    assert breaker.calm is True
    breaker.failed(TRY, 0)
    assert breaker.calm is False
    breaker.answered()
    assert breaker.calm is True
    breaker.throttled(10, 7)
    assert (breaker.calm, breaker.until) == (False, 17)
    breaker.answered()
    assert (breaker.calm, breaker.until) == (False, 17), "an answer does not end a throttling"
    breaker.failed(TRY, 17)
    breaker.failed(TRY, 17)
    assert (breaker.state, breaker.calm) == (OPEN, False)
    breaker.acquire(100)
    breaker.answered()
    assert (breaker.state, breaker.calm, breaker.until) == (CLOSED, True, 0)


def test_throttled_for_no_time_it_stays_calm():
    for retry_after in (None, 0.0):
        breaker = a_breaker()
        breaker.throttled(10, retry_after)
        assert (breaker.calm, breaker.until) == (True, 0)


def test_the_other_sides_word_holds_when_a_try_or_a_probe_opens_it():
    breaker = a_breaker(failures=1)
    breaker.failed(TRY, 100, 60)
    assert breaker.until == 160
    breaker.failed(breaker.acquire(160), 160, 200)
    assert breaker.until == 360


def test_it_may_be_open_for_less_than_a_second():
    breaker = a_breaker(failures=1, open_time="500ms")
    breaker.failed(TRY, 100)
    assert breaker.until == 100.5


def test_only_the_probe_gives_the_probe_back():
    told: list[State] = []
    breaker = an_open_one(told=told)
    breaker.released(TRY, 101)
    assert (breaker.state, breaker.until) == (OPEN, 105)
    assert breaker.acquire(105) is PROBE
    breaker.released(TRY, 106)
    assert breaker.state is HALF_OPEN, "a try from before it opened"
    breaker.released(PROBE, 107)
    assert (breaker.state, breaker.until) == (OPEN, 107)
    assert told == [OPEN, HALF_OPEN, OPEN]
    assert breaker.acquire(107) is PROBE
    breaker.answered()
    breaker.released(PROBE, 108)
    assert (breaker.state, breaker.until) == (CLOSED, 0), "it was closed by somebody's answer meanwhile"
