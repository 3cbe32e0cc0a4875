import asyncio

import pytest

from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.journal.claims import JournaledRequest
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.pipeline import acknowledge
from otelwp_agent.pipeline.acknowledge import Answer


@pytest.fixture
def future():
    loop = asyncio.new_event_loop()
    yield loop.create_future()
    loop.close()


def ask(future, rejected=lambda items, why: (items, why)):
    """Return the receipt on whose settlement the answer depends."""
    return Receipt(4, Answer(future, "yes", rejected).settled)


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.SAMPLED_OUT, Outcome.FILTERED])
def test_what_was_meant_to_become_of_it_is_a_yes(future, outcome):
    receipt = ask(future)
    receipt.settle(outcome, 3)
    assert not future.done()
    receipt.settle(Outcome.DELIVERED, 1)
    assert future.result() == "yes"


@pytest.mark.parametrize("reason", ["queue_full", "shutdown", "retries_exhausted", "timeout", "overloaded"])
def test_what_may_come_through_later_is_asked_for_again(future, reason):
    ask(future).settle(Outcome.DROPPED, 4, reason)
    error = future.exception()
    assert (type(error), error.reason) == (RetryableError, reason)
    assert str(error) == f"4 of 4 items were dropped ({reason})"


def test_what_was_lost_for_good_is_not_asked_for_again(future):
    ask(future).settle(Outcome.DROPPED, 4, "malformed")
    assert (type(future.exception()), future.exception().reason) == (PermanentError, "malformed")


def test_what_is_kept_as_a_dead_letter_is_not_called_dropped(future):
    ask(future).settle(Outcome.DROPPED, 4, "dead_letter:malformed")
    assert (type(future.exception()), future.exception().reason) == (PermanentError, "malformed")
    assert str(future.exception()) == "4 of 4 items were kept by the agent as dead letters (malformed)"


@pytest.mark.parametrize("reason", ["malformed", "queue_full"])
def test_of_a_loss_in_part_the_answer_says_how_much_and_nothing_is_sent_twice(future, reason):
    receipt = ask(future)
    receipt.settle(Outcome.DELIVERED, 3)
    receipt.settle(Outcome.DROPPED, 1, reason)
    assert future.result() == (1, f"1 of 4 items were dropped ({reason})")


def test_a_protocol_without_partial_success_is_told_that_it_failed(future):
    receipt = ask(future, rejected=None)
    receipt.settle(Outcome.DELIVERED, 3)
    receipt.settle(Outcome.DROPPED, 1, "queue_full")
    assert type(future.exception()) is PermanentError


def test_who_has_gone_away_is_not_told_and_nothing_breaks(future):
    answer = Answer(future, "yes", lambda *_: "some")
    future.cancel()
    answer.give()
    answer.fail(Overloaded("full"))
    for outcomes in ([2, 0, 0, 2], [0, 0, 0, 4]):
        receipt = Receipt(4, answer.settled)
        for outcome, items in zip(Outcome, outcomes, strict=True):
            receipt.settle(outcome, items, "malformed")
    assert future.cancelled()


async def test_who_waits_is_told_after_a_while_that_there_is_no_outcome_yet(monkeypatch):
    monkeypatch.setattr(acknowledge, "PATIENCE", 0.01)
    future = asyncio.get_running_loop().create_future()
    answer = Answer(future, "yes")
    answer.expect()
    with pytest.raises(RetryableError, match=r"not delivered within 0\.01s; it may still be delivered"):
        await future
    Receipt(1, answer.settled).settle(Outcome.DELIVERED, 1)  # at last; nobody listens any more


async def test_an_outcome_leaves_no_timer_behind(monkeypatch):
    monkeypatch.setattr(acknowledge, "PATIENCE", 0.01)
    future = asyncio.get_running_loop().create_future()
    answer = Answer(future, "yes")
    answer.expect()
    Receipt(1, answer.settled).settle(Outcome.DELIVERED, 1)
    assert answer._timer.cancelled()
    assert await future == "yes"


def test_of_an_entry_of_the_journal_all_pipelines_count(future):
    entry = JournaledRequest(None, None, 0, 2, 40)
    entry.outcomes, entry.reason = [2, 0, 0, 2], "malformed"
    Answer(future, "yes", lambda items, why: (items, why)).entry_closed(entry)
    assert future.result() == (2, "2 of 4 items were dropped (malformed)")


def test_what_the_journal_keeps_for_later_is_not_a_yes_and_says_so(future):
    entry = JournaledRequest(None, None, 0, 2, 40)
    entry.parked, entry.outcomes = True, [2, 0, 0, 0]
    Answer(future, "yes").entry_closed(entry)
    with pytest.raises(RetryableError, match="the journal keeps the request; it may still be delivered") as caught:
        future.result()
    assert caught.value.reason == "not_delivered_yet"
