from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import pytest
from structlog.testing import capture_logs

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import merge
from tests.kit.senders import (
    Destination,
    a_request,
    a_sender,
    hang,
    outcomes,
    scripted,
)

if TYPE_CHECKING:
    from otelwp_agent.model.receipt import Receipt


def test_delivers_and_counts(deliver):
    batch = a_request("a", "b")
    exporter = deliver(scripted(), batch)
    assert outcomes(batch) == [(2, 0, "")]
    assert exporter.metric("otelcol_exporter_sent_spans", exporter="test/one") == 2
    assert exporter.metric("otelcol_exporter_send_failed_spans") == 0
    assert exporter.context.registry.expose().count("otelwp_exporter_send_duration_seconds_count") == 1


def test_retries_with_growing_waits_until_it_is_taken(deliver):
    batch = a_request("a")
    exporter = deliver(scripted(*[RetryableError("busy")] * 3), batch)
    assert exporter.times == [0, 5, 12.5, 23.75]
    assert outcomes(batch) == [(1, 0, "")]
    assert exporter.metric("otelwp_exporter_retries") == 3
    assert exporter.metric("otelcol_exporter_send_failed_spans") == 0


def test_waits_at_least_as_long_as_the_other_side_says(deliver):
    exporter = deliver(scripted(Overloaded("throttled", retry_after=42)), a_request("a"))
    assert exporter.times == [0, 42]


def test_gives_up_after_max_elapsed_time(deliver):
    batch = a_request("a", "b")
    exporter = deliver(
        scripted(*[RetryableError("busy")] * 99), batch, retry=Retry(randomization_factor=0, max_elapsed_time="20s")
    )
    assert exporter.times == [0, 5, 12.5]
    assert outcomes(batch) == [(0, 2, "retries_exhausted")]
    assert exporter.metric("otelwp_exporter_dropped_items", reason="retries_exhausted") == 2
    assert exporter.metric("otelcol_exporter_send_failed_spans") == 2


def test_never_gives_up_without_a_limit(deliver):
    batch = a_request("a")
    exporter = deliver(scripted(*[RetryableError("busy")] * 500), batch, retry=Retry(max_elapsed_time=0))
    assert len(exporter.tries) == 501
    assert outcomes(batch) == [(1, 0, "")]


def test_tries_once_when_retry_is_off(deliver):
    batch = a_request("a")
    assert deliver(scripted(RetryableError("busy")), batch, retry=Retry(enabled=False)).times == [0]
    assert outcomes(batch) == [(0, 1, "retries_exhausted")]


def test_drops_what_can_never_be_taken_under_the_errors_own_reason(deliver):
    batch = a_request("a")
    exporter = deliver(scripted(PermanentError("no", reason="http_401")), batch)
    assert outcomes(batch) == [(0, 1, "http_401")]
    assert exporter.metric("otelwp_exporter_dropped_items", reason="http_401", data_type="traces") == 1


@pytest.mark.parametrize(
    "error", [OSError("no space left"), TimeoutError(), ConnectionResetError(), asyncio.CancelledError()]
)
def test_what_an_exporter_lets_through_of_the_system_is_tried_again(deliver, error):
    batch = a_request("a")
    assert deliver(scripted(error), batch).times == [0, 5]
    assert outcomes(batch) == [(1, 0, "")]


def test_a_bug_in_an_exporter_costs_that_batch_alone(deliver):
    bad, again, good = a_request("a"), a_request("b"), a_request("c")
    with capture_logs() as logs:
        deliver(scripted(ZeroDivisionError(), ZeroDivisionError()), bad, again, good, queue=Queue(num_consumers=1))
    assert outcomes(bad) == outcomes(again) == [(0, 1, "internal_error")]
    assert outcomes(good) == [(1, 0, "")]
    errors = [(log["event"], "exc_info" in log) for log in logs if log["log_level"] == "error"]
    assert errors == [("component failed: a bug in the component", True), ("items dropped", False)]


def test_a_bug_in_who_is_told_does_not_stop_the_sender(deliver):
    def broken(_: Receipt) -> None:
        raise ZeroDivisionError

    bad, good = a_request("a"), a_request("b")
    bad.shares[0][0].on_settled = broken
    with capture_logs() as logs:
        deliver(scripted(), bad, good, queue=Queue(num_consumers=1))
    assert outcomes(good) == [(1, 0, "")]
    assert [log["event"] for log in logs] == ["sending broke"]


def test_a_try_ends_at_its_timeout(deliver, loop):
    async def hang_at_first(names: list[str]) -> int:
        return await hang(names) if loop.time() < 1 else 0

    batch = a_request("a")
    exporter = deliver(hang_at_first, batch, timeout=3)
    assert exporter.times == [0, 8]
    assert outcomes(batch) == [(1, 0, "")]


def test_no_timeout_means_as_long_as_it_takes(deliver):
    async def slow(_: list[str]) -> int:
        await asyncio.sleep(10_000)
        return 0

    batch = a_request("a")
    assert deliver(slow, batch, timeout=0).times == [0]
    assert outcomes(batch) == [(1, 0, "")]


def test_partial_success_is_not_retried_and_falls_on_the_last_shares(deliver):
    batch = merge([a_request("a", "b"), a_request("c", "d"), a_request("e")])
    exporter = deliver(scripted(2), batch)
    assert outcomes(batch) == [(2, 0, ""), (1, 1, "partial_success"), (0, 1, "partial_success")]
    assert exporter.times == [0]
    assert exporter.metric("otelcol_exporter_sent_spans") == 3
    assert exporter.metric("otelcol_exporter_send_failed_spans") == 2


def test_more_rejected_than_sent_is_everything(deliver):
    batch = a_request("a", "b")
    deliver(scripted(99), batch)
    assert outcomes(batch) == [(0, 2, "partial_success")]


def test_sends_as_many_at_once_as_it_has_consumers(deliver):
    async def slow(_: list[str]) -> int:
        await asyncio.sleep(1)
        return 0

    batches = [a_request(str(number)) for number in range(6)]
    assert deliver(slow, *batches, queue=Queue(num_consumers=3)).times == [0, 0, 0, 1, 1, 1]


def test_a_full_queue_refuses_and_keeps_its_hands_off(loop):
    exporter = Destination(scripted(), loop.time)
    sender = a_sender(exporter, Queue(queue_size=1))
    kept, refused = a_request("a"), a_request("b", "c")
    sender.consume(kept)
    with pytest.raises(Overloaded):
        sender.admit()
    with pytest.raises(Overloaded) as full:
        sender.consume(refused)
    assert refused.shares[0][0].pending == 2
    assert exporter.metric("otelcol_exporter_enqueue_failed_spans") == 0, "its sender has it"
    full.value.capacity.root.lost(refused.items)
    assert exporter.metric("otelcol_exporter_enqueue_failed_spans") == 2
    assert exporter.metric("otelcol_exporter_queue_size", data_type="traces") == 1
    assert exporter.metric("otelcol_exporter_queue_capacity", data_type="traces") == 1
    loop.run_until_complete(sender.shutdown())
    assert outcomes(kept) == [(0, 1, "shutdown")]


def test_health_follows_failure_and_success(loop):
    exporter = Destination(scripted(*[RetryableError("cannot connect to x: refused")] * 2), loop.time)
    sender = a_sender(exporter)

    async def scenario():
        await sender.start()
        assert sender.health().healthy
        sender.consume(a_request("a"))
        await asyncio.sleep(7)
        sick = sender.health()
        assert not sick.healthy
        assert sick.id == "test/one"
        assert sick.message == "sending has failed for 7s: cannot connect to x: refused"
        assert sick.details["consecutive_failures"] == 2
        assert sick.details["queue_size"] == sick.details["in_flight"] == 1
        await asyncio.sleep(10)
        well = sender.health()
        assert well.healthy
        assert well.details["consecutive_failures"] == well.details["queue_size"] == 0
        await sender.shutdown()

    with capture_logs() as logs:
        loop.run_until_complete(scenario())
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("warning", "sending fails"),
        ("info", "sending works again"),
    ]


class TestBatchInTheQueue:
    BATCH: ClassVar = {"min_size": 3, "flush_timeout": "2s"}

    def test_small_batches_go_out_as_one_when_there_are_enough(self, deliver):
        batches = [a_request(name) for name in "abc"]
        exporter = deliver(scripted(), *batches, queue=Queue(batch=self.BATCH))
        assert exporter.tries == [(0, ["a", "b", "c"])]

    def test_and_after_the_timeout_however_few_there_are(self, deliver):
        exporter = deliver(scripted(), a_request("a"), a_request("b"), queue=Queue(batch=self.BATCH))
        assert exporter.tries == [(2, ["a", "b"])]

    def test_max_size_in_bytes_splits(self, deliver):
        one = a_request("a", padding=50)
        size = len(one.body) + 20
        settings = {"min_size": size, "max_size": size, "sizer": "bytes"}
        batches = [one, a_request("b", padding=50), a_request("c", padding=50)]
        exporter = deliver(scripted(), *batches, queue=Queue(batch=settings))
        assert sorted(names for _, names in exporter.tries) == [["a"], ["b"], ["c"]]

    def test_a_drain_sends_what_is_being_collected(self, loop):
        exporter = Destination(scripted(RetryableError("busy")), loop.time)
        sender = a_sender(exporter, Queue(batch=self.BATCH))
        batch = a_request("a", "b")

        async def scenario():
            await sender.start()
            sender.consume(batch)
            drained = await sender.drain(loop.time() + 30)
            with pytest.raises(Overloaded, match="shutting down"):
                sender.consume(a_request("late"))
            return drained

        drained = loop.run_until_complete(scenario())
        assert exporter.tries == [(0, ["a", "b"])]
        assert outcomes(batch) == [(0, 2, "shutdown")]
        assert (drained.delivered, drained.left) == (0, 2)
        assert not asyncio.all_tasks(loop)

    def test_a_drain_waits_for_room(self, loop):
        async def slow(_: list[str]) -> int:
            await asyncio.sleep(1)
            return 0

        sender = a_sender(Destination(slow, loop.time), Queue(batch=self.BATCH, queue_size=1, num_consumers=1))
        batches = [a_request("a", "b", "c"), a_request("d", "e", "f"), a_request("g")]

        async def scenario():
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            return await sender.drain(loop.time() + 30)

        assert loop.run_until_complete(scenario()).delivered == 7

    def test_what_finds_no_room_at_all_waits_for_the_exporters_queue(self, loop):
        exporter = Destination(scripted(), loop.time)
        sender = a_sender(exporter, Queue(batch=self.BATCH, queue_size=1))

        async def scenario():
            for _ in range(3):
                sender.consume(a_request("a", "b", "c"))
            refused = a_request("d")
            with pytest.raises(Overloaded) as full:
                sender.consume(refused)
            assert sender.refusal(refused) is not None
            with pytest.raises(Overloaded):
                sender.admit()
            full.value.capacity.root.lost(1)
            await sender.shutdown()

        loop.run_until_complete(scenario())
        assert exporter.metric("otelcol_exporter_enqueue_failed_spans") == 1


def test_too_many_requests_of_one_tenant_pause_its_batches_only(loop):
    """The exporter says that the backend throttles tenants: b is sent while a waits."""

    async def answer(names):
        if names[0].startswith("a") and loop.time() < 60:
            raise Overloaded("429", retry_after=60.0)
        return 0

    exporter = Destination(answer, loop.time)
    exporter.throttled_by_tenant = True
    sender = a_sender(exporter, Queue(num_consumers=1, min_concurrency=1))

    async def scenario():
        await sender.start()
        sender.consume(a_request("a1", tenant="a"))
        await asyncio.sleep(1)
        for name in ("a2", "b1", "a3", "b2"):
            sender.consume(a_request(name, tenant=name[0]))
        await asyncio.sleep(10)
        assert [names[0] for _, names in exporter.tries] == ["a1", "b1", "b2"]
        assert sender.breaker.calm
        await asyncio.sleep(60)
        assert sorted(names[0] for _, names in exporter.tries[3:]) == ["a1", "a2", "a3"]
        assert exporter.times[3] == 60.0
        await sender.shutdown()

    loop.run_until_complete(scenario())


def test_a_pause_ends_with_a_drain(loop):
    async def answer(names):
        if len(exporter.tries) == 1:
            raise Overloaded("429", retry_after=60.0)
        return 0

    exporter = Destination(answer, loop.time)
    exporter.throttled_by_tenant = True
    sender = a_sender(exporter)
    requests = [a_request(name, tenant="a") for name in ("first", "second")]

    async def scenario():
        await sender.start()
        sender.consume(requests[0])
        await asyncio.sleep(1)
        sender.consume(requests[1])
        await asyncio.sleep(1)
        assert len(exporter.tries) == 1
        await sender.drain(loop.time() + 10)

    loop.run_until_complete(scenario())
    assert [outcomes(each) for each in requests] == [[(1, 0, "")], [(1, 0, "")]]
