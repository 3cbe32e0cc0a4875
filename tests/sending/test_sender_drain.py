"""A sender that stops, without and with a journal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, merge
from tests.kit.senders import (
    FOREVER,
    Destination,
    a_kept_request,
    a_request,
    a_sender,
    hang,
    outcomes,
    scripted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class TestDrain:
    def run(self, loop, answer, batches: Iterable[Batch], *, after: float, within: float, **options):
        exporter = Destination(answer, loop.time)
        sender = a_sender(exporter, **options)

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            await asyncio.sleep(after)
            drained = await sender.drain(loop.time() + within)
            with pytest.raises(Overloaded, match="shutting down"):
                sender.consume(a_request("late"))
            with pytest.raises(Overloaded, match="shutting down"):
                sender.admit()
            await sender.shutdown()
            return drained, loop.time()

        drained, ended = loop.run_until_complete(scenario())
        return exporter, drained, ended

    def test_sends_what_waits(self, loop):
        async def slow(_: list[str]) -> int:
            await asyncio.sleep(1)
            return 0

        batches = [a_request(str(number)) for number in range(5)]
        _, drained, ended = self.run(loop, slow, batches, after=0, within=30, queue=Queue(num_consumers=1))
        assert (drained.delivered, drained.left, ended) == (5, 0, 5)

    def test_cuts_a_back_off_short_for_one_last_try(self, loop):
        batch = a_request("a")
        exporter, drained, _ = self.run(loop, scripted(RetryableError("busy")), [batch], after=1, within=30)
        assert exporter.times == [0, 1]
        assert (drained.delivered, drained.left) == (1, 0)

    def test_drops_what_fails_its_last_try(self, loop):
        batch = a_request("a", "b")
        with capture_logs() as logs:
            exporter, drained, ended = self.run(
                loop, scripted(*[RetryableError("busy")] * 9), [batch], after=1, within=30
            )
        assert exporter.times == [0, 1]
        assert ended == 1
        assert (drained.delivered, drained.left) == (0, 2)
        assert outcomes(batch) == [(0, 2, "shutdown")]
        assert exporter.metric("otelwp_exporter_dropped_items", reason="shutdown") == 2
        assert [(log["event"], log["items"]) for log in logs if log["log_level"] == "error"] == [("items dropped", 2)]

    def test_a_try_that_began_before_gets_another(self, loop):
        async def fail_late(_: list[str]) -> int:
            await asyncio.sleep(2)
            if loop.time() < 3:
                raise RetryableError("busy")
            return 0

        exporter, drained, _ = self.run(loop, fail_late, [a_request("a")], after=1, within=30)
        assert exporter.times == [0, 2]
        assert drained.delivered == 1

    def test_ends_at_its_deadline_whatever_hangs(self, loop):
        batches = [a_request(str(number)) for number in range(4)]
        _, drained, ended = self.run(loop, hang, batches, after=1, within=7, queue=Queue(num_consumers=2), timeout=0)
        assert ended == 8
        assert drained.left == 4
        assert [outcomes(batch) for batch in batches] == [[(0, 1, "shutdown")]] * 4

    def test_an_exporter_that_swallows_cancellation_cannot_go_on(self, loop):
        async def stubborn(_: list[str]) -> int:
            try:
                return await hang(_)
            except asyncio.CancelledError:
                raise RetryableError("never mind") from None

        batches = [a_request("a"), a_request("b")]
        exporter, drained, ended = self.run(
            loop, stubborn, batches, after=1, within=1, queue=Queue(num_consumers=1), timeout=0
        )
        assert (len(exporter.tries), drained.left, ended) == (1, 2, 2)

    def test_shutdown_cuts_a_drain_short(self, loop):
        sender = a_sender(Destination(hang, loop.time), timeout=0)

        async def scenario():
            await sender.start()
            sender.consume(a_request("a"))
            drain = asyncio.ensure_future(sender.drain(FOREVER))
            await asyncio.sleep(3)
            await sender.shutdown()
            return await drain

        drained = loop.run_until_complete(scenario())
        assert (loop.time(), drained.left) == (3, 1)

    def test_stops_without_a_start_and_twice(self, loop):
        sender = a_sender(Destination(scripted(), loop.time))
        loop.run_until_complete(sender.shutdown())
        loop.run_until_complete(sender.shutdown())

    def test_leaves_no_task_and_no_gauge(self, loop):
        exporter, _, _ = self.run(loop, scripted(), [a_request("a")], after=1, within=1)
        assert not asyncio.all_tasks(loop)
        assert all(timer.cancelled() for timer in loop._scheduled)
        assert "otelcol_exporter_queue_size{" not in exporter.context.registry.expose()


class TestWithAJournal:
    def test_retries_have_no_end(self, deliver):
        batch = a_request("a")
        retry = Retry(circuit_breaker={"enabled": False})
        exporter = deliver(scripted(*[RetryableError("busy")] * 100), batch, retry=retry, keeps=True)
        assert exporter.times[-1] > 2000
        assert outcomes(batch) == [(1, 0, "")]

    @pytest.mark.parametrize("seconds", [20, 300])
    def test_unless_the_configuration_names_one_even_if_that_is_the_default(self, deliver, seconds):
        batch = a_request("a")
        retry = Retry(max_elapsed_time=f"{seconds}s", circuit_breaker={"enabled": False})
        exporter = deliver(scripted(*[RetryableError("busy")] * 100), batch, retry=retry, keeps=True)
        assert exporter.times[-1] <= seconds
        assert outcomes(batch) == [(0, 1, "retries_exhausted")]

    def test_a_drain_lets_go_of_what_the_journal_keeps_and_drops_the_rest(self, loop):
        exporter = Destination(hang, loop.time)
        sender = a_sender(exporter, Queue(num_consumers=1), timeout=0, keeps=True)
        batches = [a_kept_request("a", "b"), merge([a_kept_request("c"), a_request("d", "e", "f")])]

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            await asyncio.sleep(1)
            return await sender.drain(loop.time() + 3)

        with capture_logs() as logs:
            drained = loop.run_until_complete(scenario())
        assert (drained.delivered, drained.left, drained.kept) == (0, 3, 3)
        assert [outcomes(batch) for batch in batches] == [[(0, 0, "")], [(0, 0, ""), (0, 3, "shutdown")]]
        assert sender._queue.size == sender._queue.bytes == 0
        assert exporter.metric("otelwp_exporter_dropped_items", reason="shutdown") == 3
        assert [(log["event"], log["items"], log["kept"]) for log in logs] == [("items dropped", 3, 3)]

    def test_a_drain_sends_what_it_can(self, loop):
        sender = a_sender(Destination(scripted(), loop.time), keeps=True)
        batch = a_kept_request("a", "b")

        async def scenario():
            await sender.start()
            sender.consume(batch)
            return await sender.drain(loop.time() + 3)

        drained = loop.run_until_complete(scenario())
        assert (drained.delivered, drained.left, drained.kept) == (2, 0, 0)
