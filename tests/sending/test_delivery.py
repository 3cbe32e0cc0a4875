"""What only the pieces show; tests/sending/test_sender.py covers outcomes through a whole sender."""

from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.config.blocks import Retry
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.errors import ForbiddenError, MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.batch import Origin, merge
from otelwp_agent.model.receipt import HELD, Ledger, Outcome
from otelwp_agent.routing.outlets import Move
from otelwp_agent.sending.breaker import Permit, State
from tests.kit.deliveries import DOWN, NOW, Letters, One, reported
from tests.kit.senders import a_request, hang, names_in, outcomes


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


def test_a_probe_that_fails_opens_the_breaker_again():
    one = One(DOWN)
    for _ in range(5):
        one.breaker.failed(Permit.TRY, NOW)
    permit = one.breaker.acquire(NOW + 5)
    assert (permit, one.breaker.state) == (Permit.PROBE, State.HALF_OPEN)
    one.send(a_request("a"), permit)
    assert one.breaker.state is State.OPEN


class TestThrottledTenants:
    def test_the_batches_of_a_tenant_wait_as_long_as_the_backend_asks(self):
        one = One(Overloaded("busy", retry_after=42), throttled_by_tenant=True)
        one.queue.put(a_request("a1", tenant="a"))
        for name in ("a2", "b1"):
            one.queue.put(a_request(name, tenant=name[0]))
        one.send_next()
        assert [names_in(one.queue.take().batch), bool(one.queue.ready)] == [["b1"], False]
        one.queue.put(a_request("a3", tenant="a"))
        assert not one.queue.ready
        assert [due for due, *_ in sorted(one.queue.later)] == [NOW + 42] * 3

    def test_a_backend_cannot_request_more_than_an_hour(self):
        one = One(Overloaded("busy", retry_after=1e9), throttled_by_tenant=True)
        one.send(a_request("a1", tenant="a"))
        one.queue.put(a_request("a2", tenant="a"))
        assert one.queue.later[0][0] == NOW + 3600

    @pytest.mark.parametrize(
        ("error", "throttled"),
        [
            (Overloaded("busy", retry_after=42), False),
            (Overloaded("busy"), True),
            (RetryableError("down", retry_after=42), True),
        ],
    )
    def test_other_failures_delay_their_own_batch_alone(self, error, throttled):
        one = One(error, throttled_by_tenant=throttled)
        one.send(a_request("a1", tenant="a"))
        one.queue.put(a_request("a2", tenant="a"))
        assert one.queue.ready


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


class TestMoves:
    """Batches that a connector before the exporter moves to another destination."""

    @pytest.mark.parametrize("error", [RetryableError("away"), ForbiddenError("403"), Overloaded("429", retry_after=9)])
    def test_a_batch_that_fails_is_released_without_an_outcome(self, error):
        batch = a_request("a", "b")
        one = One(error)
        one.watchers.add(Mover(Move.DONE))
        one.send(batch)
        assert (batch.shares[0][0].pending, one.queue.size, one.queue.taken, one.queue.later) == (2, 0, 0, [])
        assert one.metrics.line().dropped == 0

    def test_one_that_is_refused_for_good_waits_while_it_may_move_later(self):
        batch = a_request("a")
        one = One(ForbiddenError("403"))
        one.watchers.add(Mover(Move.LATER))
        one.send(batch)
        assert (batch.shares[0][0].pending, one.queue.size, len(one.queue.later)) == (1, 1, 1)

    def test_without_another_destination_nothing_is_different(self):
        batch = a_request("a")
        one = One(ForbiddenError("403"))
        one.watchers.add(Mover(Move.NONE))
        one.send(batch)
        assert batch.shares[0][0].reason == "forbidden"


class Mover:
    """A watcher with the same result for each failure."""

    def __init__(self, move):
        self.move = move

    def failed(self, _batch, _error, _pipeline):
        return self.move

    def delivered(self, _seconds):
        raise AssertionError("nothing is delivered")
