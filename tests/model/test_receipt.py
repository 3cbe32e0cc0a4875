from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model.receipt import Ledger, Outcome, Receipt
from tests.kit.claims import RecordedClaim

OUTCOMES = st.sampled_from(Outcome)


def counts(receipt: Receipt) -> list[int]:
    return [receipt.count(outcome) for outcome in Outcome]


def test_settles_once_when_the_last_item_is():
    settled = []
    receipt = Receipt(3, settled.append)
    receipt.settle(Outcome.DELIVERED, 2)
    assert not settled
    assert receipt.pending == 1
    receipt.settle(Outcome.DELIVERED, 1)
    assert settled == [receipt]
    receipt.settle(Outcome.DELIVERED, 0)
    assert settled == [receipt]
    assert receipt.worst is Outcome.DELIVERED


@pytest.mark.parametrize("items", [4, -1])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_settling_what_is_not_pending_is_a_bug_and_changes_nothing(items, before):
    receipt = Receipt(3)
    receipt.ledger = Ledger()
    receipt.settle(Outcome.FILTERED, before)
    with pytest.raises(ValueError, match=f"{items} items settled as dropped"):
        receipt.settle(Outcome.DROPPED, items, "bug")
    assert counts(receipt) == [0, 0, before, 0]
    assert receipt.ledger.settled == [0, 0, before, 0]
    assert receipt.pending == 3 - before


@given(st.lists(st.tuples(OUTCOMES, st.integers(1, 5)), min_size=1, max_size=8))
def test_counts_what_became_of_its_items(settlements):
    receipt = Receipt(sum(items for _, items in settlements))
    ledger = receipt.ledger = Ledger()
    ledger.accepted = receipt.items
    for outcome, items in settlements:
        receipt.settle(outcome, items, outcome.label)
        assert sum(counts(receipt)) + receipt.pending == receipt.items
        assert ledger.in_flight == receipt.pending
    expected = [sum(items for of, items in settlements if of is outcome) for outcome in Outcome]
    assert counts(receipt) == expected == ledger.settled
    assert receipt.worst is max(outcome for outcome, _ in settlements)
    assert receipt.reason == ("dropped" if expected[Outcome.DROPPED] else "")
    assert ledger.dropped_reasons == ({"dropped": expected[3]} if expected[3] else {})


@given(
    st.integers(1, 9).flatmap(
        lambda items: st.lists(
            st.lists(OUTCOMES, min_size=items, max_size=items),
            min_size=1,
            max_size=4,
        )
    )
)
def test_a_fan_out_settles_when_all_branches_have_and_the_worst_wins(branches):
    items = len(branches[0])
    settled = []
    parent = Receipt(items, settled.append)
    forks = parent.fork([str(number) for number in range(len(branches))])
    for fork, outcomes in zip(forks, branches, strict=True):
        assert not settled
        for outcome in outcomes:
            fork.settle(outcome, 1, "queue_full")
    assert settled == [parent]
    assert sum(counts(parent)) == items
    assert parent.worst is max(outcome for outcomes in branches for outcome in outcomes)
    assert parent.count(parent.worst) == max(outcomes.count(parent.worst) for outcomes in branches)
    assert parent.reason == ("queue_full" if parent.worst is Outcome.DROPPED else "")


def test_a_fork_of_a_fork_settles_the_root():
    root = Receipt(2)
    left, right = root.fork("ab")
    for fork in left.fork("ab"):
        fork.settle(Outcome.SAMPLED_OUT, 2)
    assert root.pending == 2
    right.settle(Outcome.DELIVERED, 2)
    assert counts(root) == [0, 2, 0, 0]


def test_an_outcome_has_a_name():
    assert [outcome.label for outcome in Outcome] == ["delivered", "sampled_out", "filtered", "dropped"]


def test_a_request_is_reported_as_kept_only_if_nothing_of_it_is_lost():
    for reasons in (("dead_letter:malformed", "queue_full"), ("queue_full", "dead_letter:malformed")):
        whole, parent = Receipt(2), Receipt(2)
        for reason in reasons:
            whole.settle(Outcome.DROPPED, 1, reason)
        for fork, reason in zip(parent.fork("ab"), reasons, strict=True):
            fork.settle(Outcome.DROPPED, 2, reason)
        assert whole.reason == parent.reason == "queue_full"


def test_a_request_that_every_branch_kept_or_delivered_is_kept():
    parent = Receipt(2)
    ledger = parent.ledger = Ledger()
    ledger.accepted = 2
    left, right = parent.fork("ab")
    left.settle(Outcome.DROPPED, 2, "dead_letter:malformed")
    right.settle(Outcome.DELIVERED, 2)
    assert (ledger.dropped_reasons, ledger.dead_letters, ledger.in_flight) == ({"dead_letter:malformed": 2}, 2, 0)


def journaled(items, on_settled=None):
    receipt = Receipt(items, on_settled)
    receipt.claim = RecordedClaim()
    receipt.ledger = Ledger(("traces", "otlp", ""))
    receipt.ledger.accepted = items
    return receipt


def test_a_new_receipt_has_everything_pending_and_belongs_to_no_branch():
    receipt = Receipt(3)
    assert (receipt.items, receipt.pending, receipt.parked) == (3, 3, 0)
    assert (receipt.branch, receipt.reason) == ("", "")
    assert (receipt.claim, receipt.ledger) == (None, None)
    assert receipt.worst is Outcome.DELIVERED
    assert counts(receipt) == [0, 0, 0, 0]


def test_a_ledger_keeps_whose_account_it_is():
    assert Ledger(("traces", "otlp", "shop")).key == ("traces", "otlp", "shop")
    assert Ledger().key == ("", "", "")


def test_a_new_ledger_has_accepted_nothing():
    ledger = Ledger()
    assert (ledger.accepted, ledger.in_flight, ledger.settled) == (0, 0, [0, 0, 0, 0])


def test_only_drops_have_reasons():
    receipt = Receipt(4)
    receipt.ledger = Ledger()
    receipt.settle(Outcome.FILTERED, 1, "filter")
    receipt.settle(Outcome.DROPPED, 1)
    assert receipt.reason == ""
    assert receipt.ledger.dropped_reasons == {"": 1}
    receipt.settle(Outcome.DROPPED, 1, "queue_full")
    receipt.settle(Outcome.DROPPED, 1)
    assert receipt.reason == "queue_full", "a drop without a reason does not erase the one before"
    assert receipt.ledger.dropped_reasons == {"": 2, "queue_full": 1}


def test_settling_nothing_of_a_receipt_that_is_settled_does_not_settle_it_again():
    settled = []
    receipt = journaled(2, settled.append)
    receipt.park(0)
    assert not settled
    receipt.settle(Outcome.DELIVERED, 2)
    receipt.park(0)
    receipt.settle(Outcome.DROPPED, 0, "bug")
    assert settled == [receipt]
    assert receipt.worst is Outcome.DELIVERED
    assert receipt.reason == ""


def test_parked_items_are_neither_settled_nor_accepted():
    settled = []
    receipt = journaled(7, settled.append)
    receipt.park(1)
    receipt.settle(Outcome.DELIVERED, 4)
    assert not settled
    receipt.park(2)
    assert settled == [receipt]
    assert (receipt.parked, receipt.pending) == (3, 3)
    assert counts(receipt) == [4, 0, 0, 0]
    assert (receipt.ledger.accepted, receipt.ledger.in_flight) == (4, 0)


def test_a_parked_item_may_not_be_settled():
    receipt = journaled(3)
    receipt.park(1)
    with pytest.raises(ValueError, match="3 items settled as delivered, but only 3 of 3 are pending"):
        receipt.settle(Outcome.DELIVERED, 3)
    receipt.settle(Outcome.DELIVERED, 2)
    assert receipt.pending == receipt.parked == 1


def test_settling_the_rest_of_a_receipt_with_parked_items_settles_it():
    settled = []
    receipt = journaled(3, settled.append)
    receipt.park(2)
    receipt.settle(Outcome.SAMPLED_OUT, 1)
    assert settled == [receipt]


def test_a_receipt_that_nobody_waits_for_may_be_parked():
    receipt = Receipt(2)
    receipt.park(2)
    assert receipt.parked == 2


def test_the_part_that_is_everything_pending_is_the_receipt_itself():
    receipt = Receipt(3)
    receipt.settle(Outcome.DELIVERED, 1)
    assert receipt.part(2) is receipt
    assert receipt.part(1) is not receipt


def test_parts_settle_into_their_receipt_with_outcome_and_reason():
    settled = []
    receipt = journaled(6, settled.append)
    first = receipt.part(4)
    assert first.items == 4
    assert first.claim is receipt.claim
    first.settle(Outcome.SAMPLED_OUT, 1)
    first.settle(Outcome.FILTERED, 2)
    assert receipt.pending == 6, "a part reports when all of it is settled"
    first.settle(Outcome.DROPPED, 1, "queue_full")
    assert counts(receipt) == [0, 1, 2, 1]
    assert receipt.reason == "queue_full"
    assert receipt.ledger.settled == [0, 1, 2, 1]
    assert receipt.ledger.dropped_reasons == {"queue_full": 1}
    assert not settled
    receipt.part(2).settle(Outcome.DELIVERED, 2)
    assert settled == [receipt]
    assert counts(receipt) == [2, 1, 2, 1]


def test_what_a_part_parks_its_receipt_parks():
    settled = []
    receipt = journaled(5, settled.append)
    part = receipt.part(3)
    part.settle(Outcome.DELIVERED, 1)
    part.park(2)
    assert (receipt.pending, receipt.parked) == (4, 2)
    assert receipt.count(Outcome.DELIVERED) == 1
    receipt.settle(Outcome.DELIVERED, 2)
    assert settled == [receipt]


def test_a_fan_out_reports_its_branches_to_the_journal():
    receipt = journaled(4)
    receipt.settle(Outcome.FILTERED, 1)
    left, right = receipt.fork(["a", "b"])
    assert (left.items, left.branch, right.branch) == (3, "a", "b")
    assert receipt.claim.reported == [("entered", 3)]
    right.settle(Outcome.DELIVERED, 3)
    assert receipt.claim.reported[1:] == [("b", 3)]
    left.settle(Outcome.DELIVERED, 3)
    assert receipt.claim.reported[2:] == [("a", 3), ("left", 3, 0)]
    assert counts(receipt) == [3, 0, 1, 0]


def test_a_second_fan_out_reports_nothing_to_the_journal_and_may_park():
    receipt = journaled(2)
    (branch,) = receipt.fork(["a"])
    one, two = branch.fork(["b", "c"])
    one.settle(Outcome.DELIVERED, 2)
    assert receipt.claim.reported == [("entered", 2)]
    assert two.claim is not None, "the journal has it, so it may be parked"
    two.park(2)
    assert receipt.claim.reported == [("entered", 2), ("left", 2, 2)]
    assert list(branch.claim.done) == []


def test_without_a_journal_the_forks_have_no_claim():
    assert [(fork.claim, fork.branch) for fork in Receipt(1).fork("ab")] == [(None, ""), (None, "")]


def test_a_branch_that_parks_is_not_reported_as_settled_and_the_most_parked_wait():
    receipt = journaled(5)
    a, b, c = receipt.fork("abc")
    a.park(3)
    a.settle(Outcome.DELIVERED, 2)
    b.park(1)
    b.settle(Outcome.DROPPED, 4, "queue_full")
    c.settle(Outcome.DELIVERED, 5)
    assert receipt.claim.reported == [("entered", 5), ("c", 5), ("left", 5, 3)]
    assert receipt.parked == 3
    assert counts(receipt) == [0, 0, 0, 2], "the worst outcome comes first, for what is left beside the parked items"
    assert receipt.pending == 3


def test_a_fan_out_settles_each_item_once_the_worst_outcomes_first():
    receipt = journaled(4)
    a, b = receipt.fork("ab")
    a.settle(Outcome.DROPPED, 1, "refused")
    a.settle(Outcome.SAMPLED_OUT, 3)
    b.settle(Outcome.FILTERED, 2)
    b.settle(Outcome.DELIVERED, 2)
    assert counts(receipt) == [0, 1, 2, 1]
    assert receipt.reason == "refused"
    assert receipt.ledger.dropped_reasons == {"refused": 1}


def test_a_fan_out_passes_on_that_a_drop_has_no_reason():
    receipt = journaled(2)
    for fork in receipt.fork("ab"):
        fork.settle(Outcome.DROPPED, 2)
    assert receipt.reason == ""
    assert receipt.ledger.dropped_reasons == {"": 2}


@pytest.mark.parametrize("first", ["", "refused"])
def test_the_reason_of_a_fan_out_is_the_last_one_that_a_branch_gave(first):
    receipt = journaled(2)
    a, b, c = receipt.fork("abc")
    a.settle(Outcome.DROPPED, 2, first)
    b.settle(Outcome.DELIVERED, 2)
    assert receipt.pending == 2
    c.settle(Outcome.DROPPED, 1, "queue_full" if not first else "")
    c.settle(Outcome.DELIVERED, 1)
    assert receipt.reason == (first or "queue_full")
