from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

import pytest
import structlog
from google.protobuf.message import DecodeError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.dead_letters.file import read_bodies, read_letters
from otelwp_agent.dead_letters.records import Fate, Letter
from otelwp_agent.dead_letters.sink import DeadLetterFile, Resent
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.exporters import otlp_http
from otelwp_agent.model.batch import Batch, merge
from otelwp_agent.model.receipt import HELD, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.parts import REFUSALS_BEFORE_GIVING_UP
from otelwp_agent.sending.sender import Sender
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import FakeTimeLoop, NoHost
from tests.kit.graphs import until
from tests.kit.http_peer import HttpPeer, Seen, response
from tests.kit.senders import EXACT, Destination, a_request, a_sender, hang, names_in, outcomes, scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from otelwp_agent.model.ledger_report import LedgerLine

FOREVER = 1e6


class Letters:
    """Dead letters in memory."""

    def __init__(self, *, fails: int = 0, full: bool = False) -> None:
        self.letters: list[tuple[list[str], str, str, str]] = []
        self.fails = fails
        self.full = full

    def put(self, batch: Batch, *, exporter: str, reason: str, error: str) -> Fate:
        assert all(receipt.pending >= items for receipt, items in batch.shares), "settled too early"
        if self.fails:
            self.fails -= 1
            return Fate.FAILED
        if self.full:
            return Fate.LOST
        self.letters.append((names_in(batch), exporter, reason, error))
        return Fate.KEPT


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


@pytest.fixture
def deliver(loop):
    """Send batches, wait until all is settled, and return the exporter."""

    def deliver(answer: Callable[[list[str]], Awaitable[int]], *batches: Batch, **options) -> Destination:
        limit = options.pop("max_request_bytes", None)
        exporter = Destination(answer, loop.time)
        exporter.max_request_bytes = limit
        sender = a_sender(exporter, **options)

        async def scenario() -> None:
            await sender.start()
            for batch in batches:
                sender.consume(batch)
            settled = asyncio.Event()
            receipts = [receipt for batch in batches for receipt, _ in batch.shares]
            open_receipts = {receipt for receipt in receipts if receipt.on_settled is None}

            def one_settled(receipt: Receipt) -> None:
                open_receipts.discard(receipt)
                if not open_receipts:
                    settled.set()

            for receipt in tuple(open_receipts):
                receipt.on_settled = one_settled
            await settled.wait()
            await sender.shutdown()

        loop.run_until_complete(scenario())
        assert sender._queue.size == sender._queue.bytes == len(sender._queue) == 0
        return exporter

    return deliver


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


def test_splits_beforehand_what_the_exporter_cannot_send_at_once(deliver):
    batch = merge([a_request("a", "b", padding=50), a_request("c", "d", padding=50)])
    exporter = deliver(scripted(), batch, max_request_bytes=150)
    assert len(exporter.tries) > 1
    assert sorted(name for _, names in exporter.tries for name in names) == ["a", "b", "c", "d"]
    assert outcomes(batch) == [(2, 0, ""), (2, 0, "")]


def test_one_item_above_the_limit_is_dropped_and_its_neighbours_pass(deliver):
    batch = merge([a_request("a"), a_request("giant", padding=500), a_request("b")])
    exporter = deliver(scripted(), batch, max_request_bytes=200)
    assert outcomes(batch) == [(1, 0, ""), (0, 1, "too_large"), (1, 0, "")]
    assert "giant" not in [name for _, names in exporter.tries for name in names]


def test_halves_what_is_refused_as_too_large(deliver):
    async def at_most_two(names: list[str]) -> int:
        if len(names) > 2:
            raise TooLargeError("413")
        return 0

    batch = a_request(*"abcdefg")
    exporter = deliver(at_most_two, batch)
    assert sorted(name for _, names in exporter.tries if len(names) <= 2 for name in names) == list("abcdefg")
    assert outcomes(batch) == [(7, 0, "")]


def test_a_single_item_refused_as_too_large_is_dropped(deliver):
    batch = a_request("a")
    deliver(scripted(TooLargeError("413")), batch)
    assert outcomes(batch) == [(0, 1, "too_large")]


def refuse(*poison: str) -> Callable[[list[str]], Awaitable[int]]:
    async def answer(names: list[str]) -> int:
        if set(names) & set(poison):
            raise MalformedError("400")
        return 0

    return answer


@pytest.mark.parametrize("poison", ["s0", "s3", "s6"])
def test_a_malformed_request_is_found_and_its_neighbours_pass(deliver, poison):
    batch = merge([a_request(f"s{number}", "more") for number in range(7)])
    deliver(refuse(poison), batch)
    bad = int(poison[1])
    assert outcomes(batch) == [(0, 2, "malformed") if n == bad else (2, 0, "") for n in range(7)]


def test_many_bad_senders_in_a_row_do_not_hide_the_good_ones(deliver):
    batch = merge([a_request(f"s{number}") for number in range(400)])
    deliver(refuse(*[f"s{number}" for number in range(200)]), batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 200 + [(1, 0, "")] * 200


def test_a_backend_that_refuses_everything_is_not_asked_for_each_request(deliver):
    batch = merge([a_request(f"s{number}") for number in range(1000)])

    async def never(_: list[str]) -> int:
        raise MalformedError("400")

    exporter = deliver(never, batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 1000
    assert len(exporter.tries) <= 2 * REFUSALS_BEFORE_GIVING_UP + 2


def test_a_malformed_request_is_dropped_whole(deliver):
    batch = a_request("a", "b", "c")
    assert len(deliver(refuse("a"), batch).tries) == 1
    assert outcomes(batch) == [(0, 3, "malformed")]


def test_a_body_that_cannot_be_split_is_dropped_as_malformed(deliver, monkeypatch):
    async def export(*_: object) -> int:
        raise TooLargeError("413")

    monkeypatch.setattr(Destination, "export", export)
    batch = merge([a_request("a"), a_request("b")]).with_body(b"\xff\xff")
    deliver(scripted(), batch)
    assert outcomes(batch) == [(0, 1, "malformed")] * 2


def test_a_batch_that_cannot_be_split_for_a_bug_is_dropped_and_its_neighbours_pass(deliver):
    whole, good = a_request("a", "b", "c"), a_request("d")
    broken = whole.with_body(whole.body, shares=[(whole.shares[0][0], 3), (Receipt(1), 1)])
    letters = Letters()
    with capture_logs() as logs:
        deliver(scripted(MalformedError("400")), broken, good, queue=Queue(num_consumers=1), dead_letters=letters)
    assert [reason for _, _, reason, _ in letters.letters] == ["internal_error"]
    assert outcomes(broken) == [(0, 3, "dead_letter:internal_error"), (0, 1, "dead_letter:internal_error")]
    assert outcomes(good) == [(1, 0, "")]
    assert "sending broke" in [log["event"] for log in logs]


def test_an_encoded_body_is_never_split(deliver):
    whole = merge([a_request("a"), a_request("b")])
    batch = Batch(whole.signal, whole.body, whole.items, whole.origin, whole.shares, ("zstd",))
    assert len(deliver(scripted(MalformedError("400")), batch).tries) == 1
    assert outcomes(batch) == [(0, 1, "malformed")] * 2


def test_each_part_is_retried_on_its_own(deliver):
    failed = []

    async def answer(names: list[str]) -> int:
        if len(names) > 1:
            raise TooLargeError("413")
        if names == ["b"] and not failed:
            failed.append(names)
            raise RetryableError("busy")
        return 0

    batch = a_request("a", "b")
    exporter = deliver(answer, batch)
    assert exporter.tries[1:] == [(0, ["a"]), (0, ["b"]), (5, ["b"])]
    assert outcomes(batch) == [(2, 0, "")]


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


class TestDeadLetters:
    @pytest.mark.parametrize(
        ("answer", "reason", "error"),
        [
            (PermanentError("no such tenant", reason="http_403"), "http_403", "no such tenant"),
            (MalformedError("bad span"), "malformed", "bad span"),
            (TooLargeError("413"), "too_large", "413"),
            (1, "partial_success", "the backend rejected them"),
            (ZeroDivisionError("x"), "internal_error", "a bug in the exporter: ZeroDivisionError('x')"),
        ],
    )
    def test_what_is_refused_for_good_goes_there_with_the_reason(self, deliver, answer, reason, error):
        letters, batch = Letters(), a_request("a")
        deliver(scripted(answer), batch, dead_letters=letters)
        assert letters.letters == [(["a"], "test/one", reason, error)]
        assert outcomes(batch) == [(0, 1, f"dead_letter:{reason}")]

    def test_what_a_full_file_does_not_keep_is_lost(self, deliver):
        batch = a_request("a")
        with capture_logs() as logs:
            exporter = deliver(refuse("a"), batch, dead_letters=Letters(full=True))
        assert outcomes(batch) == [(0, 1, "malformed")]
        assert "items dropped" in [log["event"] for log in logs]
        assert exporter.context.registry.value("otelwp_exporter_dropped_items", reason="malformed") == 1

    def test_what_is_kept_is_reported_as_kept(self, deliver):
        with capture_logs() as logs:
            exporter = deliver(refuse("a"), a_request("a"), dead_letters=Letters())
        errors = [(log["event"], log["reason"], log["items"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "malformed", 1)]
        assert exporter.context.registry.value("otelwp_exporter_dropped_items") == 0

    def test_a_letter_that_is_resent_counts_once_in_the_ledger(self, loop):
        sender = a_sender(Destination(refuse("a"), loop.time), dead_letters=Letters())

        async def refused_resent_and_refused_again() -> list[LedgerLine]:
            lines = []
            await sender.start()
            for resent in (False, True):
                sender.consume(a_request("a"))
                if resent:
                    sender.resent(1, "malformed")
                    lines.append(sender.line())
                await sender.drain(loop.time() + 10) if resent else await asyncio.sleep(1)
                lines.append(sender.line())
            return lines

        first, pending, again = loop.run_until_complete(refused_resent_and_refused_again())
        assert (first.accepted, first.dropped, first.kept) == (1, 1, 1)
        assert (pending.accepted, pending.dropped, pending.in_flight) == (1, 0, 1)
        assert (again.accepted, again.dropped, again.kept, again.in_flight) == (1, 1, 1, 0)
        assert not [problem for line in (first, pending, again) for problem in line.problems()]

    def test_a_resent_letter_that_is_refused_again_is_counted_with_its_new_reason(self, deliver):
        letter = Letter("1", 0.0, "test/one", Signal.TRACES, 1, 4, "malformed", "no")
        batch = a_request("a")
        receipt = Resent(letter, lambda _: None)
        receipt.on_settled = None  # set by `deliver`
        batch = batch.with_body(batch.body, shares=[(receipt, 1)])
        with capture_logs() as logs:
            deliver(scripted(PermanentError("gone", reason="http_410")), batch, dead_letters=Letters())
        errors = [(log["event"], log["reason"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "http_410")]

    @pytest.mark.parametrize("stops", [False, True], ids=["retries_exhausted", "shutdown"])
    def test_a_resent_letter_that_is_not_delivered_is_still_kept(self, loop, stops):
        letter = Letter("1", 0.0, "test/one", Signal.TRACES, 1, 4, "malformed", "no")
        receipt = Resent(letter, lambda _: None)
        batch = a_request("a")
        sender = a_sender(
            Destination(scripted(RetryableError("busy")), loop.time), retry=Retry(enabled=False), dead_letters=Letters()
        )

        async def resend() -> None:
            sender.consume(batch.with_body(batch.body, shares=[(receipt, 1)]))
            if not stops:
                await sender.start()
                await asyncio.sleep(1)
            await sender.shutdown()

        with capture_logs() as logs:
            loop.run_until_complete(resend())
        errors = [(log["event"], log["reason"], log["items"]) for log in logs if log["log_level"] == "error"]
        assert errors == [("items kept as dead letters", "malformed", 1)]
        assert (receipt.pending, sender.line().reasons, sender.line().balance) == (0, {"dead_letter:malformed": 1}, 0)

    def test_a_letter_of_an_earlier_process_is_new_to_the_ledger(self, loop):
        sender = a_sender(Destination(scripted(), loop.time), dead_letters=Letters())
        sender.consume(a_request("a"))
        sender.resent(1, "malformed")
        assert (sender.line().accepted, sender.line().in_flight, sender.line().balance) == (1, 1, 0)
        loop.run_until_complete(sender.shutdown())

    def test_one_item_above_the_limit_goes_there_without_a_try(self, deliver):
        letters, giant = Letters(), a_request("giant", padding=500)
        exporter = deliver(scripted(), giant, a_request("b"), max_request_bytes=200, dead_letters=letters)
        assert [(names, reason) for names, _, reason, _ in letters.letters] == [(["giant"], "too_large")]
        assert [names for _, names in exporter.tries] == [["b"]]

    def test_of_a_merged_batch_only_the_malformed_request(self, deliver):
        letters = Letters()
        batch = merge([a_request(f"s{number}", "more") for number in range(7)])
        deliver(refuse("s3"), batch, dead_letters=letters)
        assert [(names, reason) for names, _, reason, _ in letters.letters] == [(["s3", "more"], "malformed")]

    def test_a_backend_that_refuses_everything_leaves_nothing_out(self, deliver):
        async def never(_: list[str]) -> int:
            raise MalformedError("400")

        letters = Letters()
        deliver(never, merge([a_request(f"s{number}") for number in range(1000)]), dead_letters=letters)
        named = [name for names, *_ in letters.letters for name in names]
        assert sorted(named) == sorted(f"s{number}" for number in range(1000))

    @pytest.mark.parametrize(
        ("answers", "retry"),
        [([RetryableError("busy")], Retry(enabled=False)), ([1], EXACT)],
        ids=["retries_exhausted", "some rejected"],
    )
    def test_what_may_yet_be_taken_or_cannot_be_named_does_not(self, deliver, answers, retry):
        letters = Letters()
        deliver(scripted(*answers), a_request("a", "b"), retry=retry, dead_letters=letters)
        assert letters.letters == []

    def test_what_cannot_be_written_and_a_journal_has_is_sent_again(self, deliver):
        letters, batch = Letters(fails=2), a_request("a")
        exporter = deliver(refuse("a"), batch, dead_letters=letters, keeps=True)
        assert exporter.tries == [(0.0, ["a"]), (1.0, ["a"]), (2.0, ["a"])]
        assert len(letters.letters) == 1
        assert outcomes(batch) == [(0, 1, "dead_letter:malformed")]

    def test_what_cannot_be_written_and_nobody_has_is_dropped(self, deliver):
        letters, batch = Letters(fails=2), a_request("a")
        exporter = deliver(refuse("a"), batch, dead_letters=letters)
        assert len(exporter.tries) == 1
        assert (letters.letters, outcomes(batch)) == ([], [(0, 1, "malformed")])

    def test_nor_what_a_stop_drops(self, loop):
        letters = Letters()
        sender = a_sender(Destination(scripted(), loop.time), dead_letters=letters)
        sender.consume(a_request("a"))
        loop.run_until_complete(sender.shutdown())
        assert letters.letters == []

    async def test_one_malformed_request_among_a_thousand_arrives_there_alone(self, tmp_path):
        """A real server refuses what it cannot read: 1 000 other requests of the same body arrive, one does not."""

        def invalid_utf8() -> Batch:
            batch = a_request("poison")
            return batch.with_body(batch.body.replace(b"poison", b"\xff\xfeison"))

        arrived: list[str] = []

        async def answer(seen: Seen) -> bytes:
            try:
                message = ExportTraceServiceRequest.FromString(seen.body)
            except DecodeError:
                return response("400 Bad Request")
            arrived.extend(span.name for rs in message.resource_spans for ss in rs.scope_spans for span in ss.spans)
            return response()

        requests = [a_request(f"span {number}") for number in range(1000)]
        requests.insert(617, invalid_utf8())
        batch = merge(requests)
        log, registry = structlog.get_logger(), Registry()
        letters = DeadLetterFile(tmp_path / "dead-letters", 2**20, registry, log)
        letters.open()
        async with HttpPeer(answer) as peer:
            context = Context(ComponentId("otlp_http"), Kind.EXPORTER, registry, log, time.monotonic, NoHost())
            settings = {"endpoint": f"http://127.0.0.1:{peer.port}", "compression": "none"}
            exporter = otlp_http.FACTORY.build(otlp_http.Config(**settings), context)
            await exporter.start()
            sender = Sender(
                exporter, Signal.TRACES, queue=Queue(), retry=Retry(), timeout=5, dead_letters=letters, keeps=True
            )
            await sender.start()
            sender.consume(batch)
            await until(lambda: not any(receipt.pending for receipt, _ in batch.shares))
            await sender.drain(time.monotonic() + 5)
            await exporter.shutdown()
        letters.close()
        assert sorted(arrived) == sorted(f"span {number}" for number in range(1000))
        assert outcomes(batch).count((1, 0, "")) == 1000
        assert outcomes(batch)[617] == (0, 1, "dead_letter:malformed")
        (letter,) = read_letters(letters.path).letters
        assert (letter.reason, letter.items, letter.exporter) == ("malformed", 1, "otlp_http")
        ((_, body),) = read_bodies(letters.path, {letter.id})
        assert b"\xff\xfeison" in body


def a_kept_request(*names: str) -> Batch:
    """A request that a journal has."""
    batch = a_request(*names)
    batch.shares[0][0].claim = HELD
    return batch


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


ANSWERS = st.sampled_from(
    [
        "ok",
        "ok",
        "partial",
        "retryable",
        "throttled",
        "permanent",
        "too_large",
        "malformed",
        "hang",
        "slow",
        "cancelled",
        "bug",
    ]
)


QUIET = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical"))


class Accounting(RuleBasedStateMachine):
    """Whatever the destination does, whenever the sender stops: each item is settled once and the queue ends empty."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeTimeLoop()
        self.answers: list[str] = []
        self.receipts: list[Receipt] = []
        self.settled: list[Receipt] = []
        self.taken = 0
        self.exporter = Destination(self.answer, self.loop.time, QUIET)
        self.exporter.max_request_bytes = 120
        self.sender = a_sender(
            self.exporter,
            Queue(num_consumers=2, queue_size=12, sizer="items"),
            Retry(max_elapsed_time="40s"),
        )
        self.loop.run_until_complete(self.sender.start())

    async def answer(self, names: list[str]) -> int:
        what = self.answers.pop(0) if self.answers else "ok"
        match what:
            case "partial":
                return 1
            case "hang":
                return await hang(names)
            case "slow":
                await asyncio.sleep(2)
            case "ok":
                pass
            case _:
                raise {
                    "retryable": RetryableError("busy"),
                    "throttled": Overloaded("busy", retry_after=11),
                    "permanent": PermanentError("no"),
                    "too_large": TooLargeError("413"),
                    "malformed": MalformedError("400"),
                    "cancelled": asyncio.CancelledError(),
                    "bug": ZeroDivisionError(),
                }[what]
        return 0

    @rule(
        shares=st.lists(st.integers(1, 4), min_size=1, max_size=5),
        answers=st.lists(ANSWERS, max_size=8),
        tenant=st.sampled_from(["", "a", "b"]),
    )
    def consume(self, shares, answers, tenant):
        self.answers += answers
        batch = merge([a_request(*[f"{n}"] * items, padding=8, tenant=tenant) for n, items in enumerate(shares)])
        receipts = [receipt for receipt, _ in batch.shares]
        for receipt in receipts:
            receipt.on_settled = self.settled.append
        try:
            self.sender.consume(batch)
        except Overloaded:
            assert all(receipt.pending == receipt.items for receipt in receipts)
        else:
            self.receipts += receipts
            self.taken += batch.items

    @rule(seconds=st.sampled_from([0, 0, 1, 4, 30]))
    def wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.receipts)
    @rule(seconds=st.sampled_from([0, 1, 100]))
    def drain(self, seconds):
        self.loop.run_until_complete(self.sender.drain(self.loop.time() + seconds))
        assert not any(receipt.pending for receipt in self.receipts)

    @invariant()
    def adds_up(self):
        pending = sum(receipt.pending for receipt in self.receipts)
        sent = self.exporter.metric("otelcol_exporter_sent_spans")
        failed = self.exporter.metric("otelcol_exporter_send_failed_spans")
        assert self.taken == sent + failed + pending
        assert sent == sum(receipt.count(Outcome.DELIVERED) for receipt in self.receipts)
        assert failed == self.exporter.metric("otelwp_exporter_dropped_items")
        queue = self.sender._queue
        assert queue.size == pending == sum(line.size for line in queue._tenants)
        assert queue.bytes == sum(line.bytes for line in queue._tenants)
        assert 1 <= self.sender._concurrency.limit <= 2

    def teardown(self):
        self.loop.run_until_complete(self.sender.drain(self.loop.time() + 1))
        self.adds_up()
        queue = self.sender._queue
        assert (queue.size, queue.bytes, len(queue), self.sender._metrics.in_flight) == (0, 0, 0, 0)
        assert sorted(map(id, self.settled)) == sorted(map(id, self.receipts))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=100, stateful_step_count=20)
