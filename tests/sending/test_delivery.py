"""What only the pieces show; tests/sending/test_sender.py covers outcomes through a whole sender."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.dead_letters.records import Fate, Letter
from otelwp_agent.dead_letters.sink import Resent
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Origin, merge
from otelwp_agent.model.receipt import HELD, Ledger, Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.attempts import Attempts
from otelwp_agent.sending.breaker import Permit, State
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.delivery import LETTER_INTERVAL, Delivery
from otelwp_agent.sending.dispatcher import Dispatcher
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.testing import FakeClock
from tests.kit.senders import EXACT, Destination, a_request, hang, names_in, outcomes, scripted

NOW = 100.0
DOWN = RetryableError("down")


class One:
    """A delivery without tasks: a test sends each batch."""

    def __init__(
        self, *answers: int | BaseException, dead_letters=None, journaled=False, max_bytes=None, retry=EXACT, size=1000
    ) -> None:
        self.clock = FakeClock(NOW)
        self.exporter = Destination(scripted(*answers), self.clock)
        context = self.exporter.context
        self.queue = SendingQueue(Queue(queue_size=size), "test/one", clock=self.clock)
        self.breaker, concurrency = breaker_of(context, retry, lambda: 0.5), Concurrency(1, 1)
        self.metrics = ExporterMetrics(context, Signal.TRACES, self.queue, self.breaker, concurrency)
        self.dispatcher = Dispatcher(self.queue, self.breaker, concurrency, 1, context.clock)
        self.delivery = Delivery(
            Attempts(self.exporter, self.metrics, self.breaker, concurrency, 5),
            self.metrics,
            queue=self.queue,
            breaker=self.breaker,
            dispatcher=self.dispatcher,
            clock=context.clock,
            exporter="test/one",
            retry=retry,
            max_bytes=max_bytes,
            journaled=journaled,
            dead_letters=dead_letters,
            deliveries=context.deliveries,
            random=lambda: 0.5,
        )

    def send(self, batch, permit=Permit.TRY) -> None:
        self.queue.put(batch)
        self.send_next(permit)

    def send_next(self, permit=Permit.TRY) -> None:
        asyncio.run(self.delivery.send(self.queue.take(), permit))

    def during_the_attempt(self, call) -> None:
        """Let the next attempts call a function before they are answered."""
        answer = self.exporter.answer

        async def slow(names):
            call()
            return await answer(names)

        self.exporter.answer = slow

    def waiting(self):
        """Return the names of the spans in the queue, in the order in which they will be sent."""
        self.queue.recall(float("inf"))
        return [names_in(self.queue.take().batch) for _ in range(len(self.queue))]


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def reported(log):
    """Return event, reason, number of items and error of what was logged."""
    return [(line["event"], line.get("reason"), line.get("items"), line.get("error")) for line in log]


def test_a_delivered_batch_is_settled_and_released():
    one, batch = One(0), a_request("a", "b")
    ledger = batch.shares[0][0].ledger = Ledger()
    one.send(batch)
    assert (outcomes(batch), ledger.settled) == ([(2, 0, "")], [2, 0, 0, 0])
    assert (one.queue.size, one.metrics.delivered) == (0, 2)


def test_outcomes_are_counted_by_exporter_and_tenant():
    one, batch = One(0), a_request("a", "b")
    batch.origin = Origin("otlp", "http", "shop")
    one.send(batch)
    rejected = One(1)
    other = a_request("a", "b", "c")
    other.origin = Origin("otlp", "http", "shop")
    rejected.send(other)
    lost = One(PermanentError("no"))
    third = a_request("a")
    third.origin = Origin("otlp", "http", "shop")
    lost.send(third)
    found = [list(each.exporter.context.deliveries) for each in (one, rejected, lost)]
    assert found == [[("test/one", "shop", 2, 0)], [("test/one", "shop", 2, 1)], [("test/one", "shop", 0, 1)]]


class TestRetries:
    def test_a_batch_that_failed_waits_in_the_queue_for_its_retry(self):
        one, batch = One(DOWN), a_request("a")
        one.send(batch)
        assert outcomes(batch) == [(0, 0, "")]
        assert (len(one.queue.later), one.queue.size) == (1, 1)
        assert one.queue.due == NOW + 5
        assert one.metrics.health().details["last_error"] == "down"

    def test_it_waits_from_the_end_of_the_attempt_as_long_as_the_backend_asks(self):
        one = One(Overloaded("busy", retry_after=42))
        one.during_the_attempt(lambda: setattr(one.clock, "now", NOW + 3))
        one.send(a_request("a"))
        assert one.queue.due == NOW + 3 + 42

    def test_attempts_after_the_first_are_counted_as_retries(self):
        one, batch = One(DOWN, DOWN), a_request("a")
        one.send(batch)
        assert one.exporter.metric("otelwp_exporter_retries") == 0
        for retries in (1, 2):
            one.queue.recall(float("inf"))
            one.send_next()
            assert one.exporter.metric("otelwp_exporter_retries") == retries
        assert outcomes(batch) == [(1, 0, "")]

    @pytest.mark.parametrize(("seconds", "dropped"), [("8s", 0), ("7999ms", 1)])
    def test_max_elapsed_time_begins_with_the_first_attempt(self, log, seconds, dropped):
        one = One(DOWN, retry=Retry(randomization_factor=0, max_elapsed_time=seconds))
        one.during_the_attempt(lambda: setattr(one.clock, "now", NOW + 3))
        one.send(batch := a_request("a"))
        assert outcomes(batch) == [(0, dropped, "retries_exhausted" if dropped else "")]
        assert one.queue.size == 1 - dropped
        assert reported(log)[1:] == [("items dropped", "retries_exhausted", 1, "down")] * dropped


class TestDraining:
    def test_a_batch_that_fails_is_abandoned(self):
        one, batch = One(DOWN), a_request("a")
        one.dispatcher.hurry()
        one.send(batch)
        assert outcomes(batch) == [(0, 1, "shutdown")]
        assert one.queue.size == 0

    def test_one_whose_attempt_began_before_is_tried_again_at_once(self):
        one, batch = One(DOWN), a_request("a")
        one.during_the_attempt(one.dispatcher.hurry)
        one.send(batch)
        assert (outcomes(batch), one.queue.due) == ([(0, 0, "")], NOW)

    def test_nothing_is_tried_again_after_the_deadline(self):
        one, batch = One(DOWN), a_request("a")
        one.during_the_attempt(lambda: setattr(one.dispatcher, "stopped", True))
        one.send(batch)
        assert outcomes(batch) == [(0, 1, "shutdown")]

    def test_everything_that_waits_is_abandoned_if_the_breaker_opens(self):
        one = One(DOWN, DOWN, retry=Retry(circuit_breaker={"failures": 2}))
        one.send(late := a_request("late"))
        one.dispatcher.hurry()
        one.queue.put(waiting := a_request("waiting"))
        one.send_next()
        assert outcomes(late) == outcomes(waiting) == [(0, 1, "shutdown")]
        assert (len(one.exporter.tries), len(one.queue), one.queue.size) == (2, 0, 0)

    def test_the_others_are_tried_while_it_is_closed(self):
        one = One(DOWN)
        one.queue.put(a_request("a"))
        one.queue.put(a_request("b"))
        one.dispatcher.hurry()
        one.send_next()
        assert one.waiting() == [["b"]]

    def test_abandoning_everything_includes_what_waits_for_its_retry(self):
        one = One(DOWN, journaled=True)
        one.send(a_request("lost", "lost"))
        kept = a_request("kept")
        kept.shares[0][0].claim = HELD
        one.queue.put(kept)
        one.delivery.abandon_all()
        assert (len(one.queue), one.queue.size) == (0, 0)
        assert (one.metrics.left, one.metrics.kept, one.metrics.line().in_flight) == (2, 1, 1)

    def test_a_send_that_is_cancelled_abandons_its_batch(self):
        one, batch = One(), a_request("a")

        async def cancelled() -> None:
            one.queue.put(batch)
            task = asyncio.ensure_future(one.delivery.send(one.queue.take(), Permit.TRY))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        one.exporter.answer = hang
        asyncio.run(cancelled())
        assert outcomes(batch) == [(0, 1, "shutdown")]
        assert one.queue.size == 0


class TestTooLarge:
    def test_a_batch_above_the_limit_is_replaced_by_its_parts_without_an_attempt(self):
        one, batch = One(max_bytes=30), a_request("aaaaaaaaaa", "bbbbbbbbbb")
        one.send(batch)
        assert one.waiting() == [["aaaaaaaaaa"], ["bbbbbbbbbb"]]
        assert one.exporter.tries == []
        assert batch.shares[0][0].count(Outcome.DELIVERED) == 0

    def test_its_parts_are_as_large_as_the_limit_permits(self):
        one = One(max_bytes=60)
        one.send(a_request(*[letter * 10 for letter in "abcdefgh"]))
        assert [len(names) for names in one.waiting()] == [2, 2, 2, 2]

    def test_a_batch_of_the_size_of_the_limit_is_sent(self):
        batch = a_request("a", "b")
        one = One(max_bytes=len(batch.body))
        one.send(batch)
        assert outcomes(batch) == [(2, 0, "")]

    def test_a_single_item_above_the_limit_is_given_up_with_the_figures(self, log):
        one, batch = One(max_bytes=20), a_request("a" * 50)
        one.send(batch)
        size = len(batch.body)
        error = f"{size} bytes in 1 items, and 20 bytes are the most it may send"
        assert reported(log) == [("items dropped", "too_large", 1, error)]
        assert one.metrics.health().details["last_error"] == error

    def test_a_probe_that_is_not_sent_lets_another_start(self):
        one = One(max_bytes=30)
        one.breaker.state, one.breaker.until = State.HALF_OPEN, float("inf")
        one.send(a_request("aaaaaaaaaa", "bbbbbbbbbb"), Permit.PROBE)
        assert (one.breaker.state, one.breaker.until) == (State.OPEN, NOW)


class TestPartialSuccess:
    def test_rejected_items_are_dropped_from_the_end(self, log):
        batch = merge([a_request("a", "b"), a_request("c", "d"), a_request("e")])
        ledger = Ledger()
        for receipt, _ in batch.shares:
            receipt.ledger = ledger
        one = One(2)
        one.send(batch)
        assert ledger.settled == [3, 0, 0, 2]
        assert outcomes(batch) == [(2, 0, ""), (1, 1, "partial_success"), (0, 1, "partial_success")]
        assert (one.metrics.delivered, one.queue.size) == (3, 0)
        assert one.metrics.line().reasons == {"partial_success": 2}
        assert reported(log) == [("items dropped", "partial_success", 2, "the backend rejected them")]

    @pytest.mark.parametrize("rejected", [2, 3])
    def test_a_batch_of_which_everything_is_rejected_is_given_up(self, log, rejected):
        letters, batch = Letters(Fate.KEPT), a_request("a", "b")
        One(rejected, dead_letters=letters).send(batch)
        assert letters.put_with == [
            {"exporter": "test/one", "reason": "partial_success", "error": "the backend rejected them"}
        ]
        assert outcomes(batch) == [(0, 2, "dead_letter:partial_success")]

    @pytest.mark.parametrize(("rejected", "dropped"), [(1, 1), (0, 0), (-1, 0)])
    def test_a_number_of_rejected_items_below_one_rejects_nothing(self, rejected, dropped):
        one, batch = One(rejected), a_request("a", "b")
        one.send(batch)
        assert outcomes(batch) == [(2 - dropped, dropped, "partial_success" if dropped else "")]
        assert one.metrics.delivered == 2 - dropped

    def test_a_delivered_part_shows_that_the_backend_does_not_refuse_everything(self):
        one = One(MalformedError("400"), 0)
        one.send(merge([a_request("a"), a_request("b")]))
        first, second = one.queue.take(), one.queue.take()
        assert first.search is second.search
        assert first.search.accepted is False
        asyncio.run(one.delivery.send(first, Permit.TRY))
        assert second.search.accepted is True


class Letters:
    def __init__(self, fate):
        self.fate = fate
        self.put_with = []

    def put(self, batch, **why):
        self.put_with.append(why)
        return self.fate


class TestDeadLetters:
    @pytest.mark.parametrize("journaled", [False, True])
    def test_a_refused_batch_is_given_up_once_its_dead_letter_is_kept(self, log, journaled):
        letters, batch = Letters(Fate.KEPT), a_request("a")
        one = One(MalformedError("no protobuf"), dead_letters=letters, journaled=journaled)
        one.send(batch)
        assert letters.put_with == [{"exporter": "test/one", "reason": "malformed", "error": "no protobuf"}]
        assert outcomes(batch) == [(0, 1, "dead_letter:malformed")]
        assert reported(log) == [("items kept as dead letters", "malformed", 1, "no protobuf")]
        assert one.metrics.health().details["last_error"] == "no protobuf"

    def test_a_journaled_batch_whose_dead_letter_cannot_be_kept_is_sent_again(self):
        letters, batch = Letters(Fate.FAILED), a_request("a")
        one = One(MalformedError("no protobuf"), dead_letters=letters, journaled=True)
        one.send(batch)
        assert outcomes(batch) == [(0, 0, "")]
        assert one.queue.due == NOW + LETTER_INTERVAL

    def test_while_draining_it_stays_in_the_journal(self):
        batch = a_request("a")
        batch.shares[0][0].claim = HELD
        one = One(MalformedError("no protobuf"), dead_letters=Letters(Fate.FAILED), journaled=True)
        one.dispatcher.hurry()
        one.send(batch)
        assert (batch.shares[0][0].parked, one.queue.size, one.metrics.kept) == (1, 0, 1)

    @pytest.mark.parametrize(
        ("fate", "journaled"),
        [(Fate.FAILED, False), (Fate.LOST, False), (Fate.LOST, True), (None, False), (None, True)],
    )
    def test_a_batch_that_nobody_can_keep_is_dropped(self, log, fate, journaled):
        batch = a_request("a")
        one = One(MalformedError("no protobuf"), dead_letters=fate and Letters(fate), journaled=journaled)
        one.send(batch)
        assert outcomes(batch) == [(0, 1, "malformed")]
        assert reported(log) == [("items dropped", "malformed", 1, "no protobuf")]
        assert one.queue.size == 0


def resent(*reasons):
    """Return a batch of one span for each dead letter with these reasons; "" is a request that was no letter."""
    letters = [Letter("1", 0.0, "test/one", Signal.TRACES, 1, 4, reason, "no") for reason in reasons]
    batch = merge([a_request("a") for _ in reasons])
    shares = [
        (Resent(letter, lambda _: None), 1) if letter.reason else share
        for letter, share in zip(letters, batch.shares, strict=True)
    ]
    return batch.with_body(batch.body, shares=shares)


class TestResentLetters:
    """A letter that was resent stays in the file until it is delivered, so what is dropped of it is not lost."""

    @pytest.mark.parametrize(
        ("reasons", "counted"),
        [
            (("malformed",), "dead_letter:malformed"),
            (("http_401", "malformed"), "dead_letter:http_401"),
            (("malformed", ""), "retries_exhausted"),
            (("", "malformed"), "retries_exhausted"),
        ],
    )
    def test_they_are_counted_as_kept_if_nothing_of_the_batch_is_lost(self, reasons, counted):
        one = One(DOWN, retry=Retry(enabled=False))
        one.send(resent(*reasons))
        assert one.metrics.line().reasons == {counted: len(reasons)}

    def test_a_new_letter_counts_with_its_new_reason(self):
        one = One(PermanentError("gone", reason="http_410"), dead_letters=Letters(Fate.KEPT))
        one.send(resent("malformed"))
        assert one.metrics.line().reasons == {"dead_letter:http_410": 1}

    def test_they_are_reported_as_kept_if_the_agent_stops_before(self, log):
        one = One()
        one.queue.put(batch := resent("malformed", "malformed"))
        one.delivery.abandon_all()
        assert one.metrics.line().reasons == {"dead_letter:malformed": 2}
        error = "the agent stopped before they were sent again"
        assert reported(log) == [("items kept as dead letters", "malformed", 2, error)]
        assert (one.metrics.left, one.queue.size) == (0, 0)
        assert outcomes(batch) == [(0, 1, "shutdown")] * 2


@pytest.mark.parametrize(
    ("answer", "progress"),
    [(0, True), (1, True), (2, True), (PermanentError("no"), True), (DOWN, False), ("stop", False)],
)
def test_a_release_is_progress_only_if_the_backend_has_answered(answer, progress):
    """A queue without progress isolates its exporter."""
    one = One(DOWN if answer == "stop" else answer, size=1, retry=Retry(enabled=answer == "stop"))
    one.queue.put(a_request("a", "b"))
    with pytest.raises(Overloaded):
        one.queue.put(a_request("c"))
    if answer == "stop":
        one.dispatcher.hurry()
    one.send_next()
    assert one.queue.size == 0
    assert one.queue.space.freed_at == (NOW if progress else float("-inf"))


class TestBugs:
    def test_a_bug_before_a_batch_is_released_drops_it(self, log, monkeypatch):
        letters, batch = Letters(Fate.LOST), a_request("a")
        one = One(0, dead_letters=letters)
        monkeypatch.setattr(one.metrics, "sent", lambda _: 1 / 0)
        one.send(batch)
        assert outcomes(batch) == [(0, 1, "internal_error")]
        error = "ZeroDivisionError('division by zero')"
        assert [line["event"] for line in log] == ["sending broke", "items dropped"]
        assert letters.put_with == [{"exporter": "test/one", "reason": "internal_error", "error": error}]

    def test_a_bug_in_what_follows_the_release_is_logged_alone(self, log):
        one, batch = One(0), a_request("a")
        batch.shares[0][0].on_settled = lambda _: 1 / 0
        one.send(batch)
        assert (outcomes(batch), one.queue.size) == ([(1, 0, "")], 0)
        assert [line["event"] for line in log] == ["sending broke"]
