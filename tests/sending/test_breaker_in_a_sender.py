"""The circuit breaker of a sender: how often it tries a backend that fails."""

from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.breaker import State
from otelwp_agent.sending.metrics import breaker_of
from otelwp_agent.sending.sender import Sender
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import EXACT, Destination, a_request, a_sender, outcomes, scripted


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
            assert breaker.state is State.OPEN
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
