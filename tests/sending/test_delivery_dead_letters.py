"""What becomes of batches that can never be delivered: dead letters, and letters that are sent again."""

from __future__ import annotations

import pytest

from otelwp_agent.config.blocks import Retry
from otelwp_agent.dead_letters.records import Fate, Letter
from otelwp_agent.dead_letters.sink import Resent
from otelwp_agent.errors import MalformedError, PermanentError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import HELD
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.delivery import LETTER_INTERVAL
from tests.kit.deliveries import DOWN, NOW, Letters, One, reported
from tests.kit.senders import a_request, outcomes


class TestDeadLetters:
    @pytest.mark.parametrize("journaled", [False, True])
    def test_a_refused_batch_is_given_up_once_its_dead_letter_is_kept(self, log, journaled):
        letters, batch = Letters(Fate.KEPT), a_request("a")
        one = One(MalformedError("no protobuf"), dead_letters=letters, journaled=journaled)
        one.send(batch)
        assert letters.batches == [batch]
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
        one.queue.recall(NOW + LETTER_INTERVAL)
        one.send_next()
        assert outcomes(batch) == [(1, 0, "")]

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
