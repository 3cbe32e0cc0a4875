from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model.receipt import Ledger, Outcome, Receipt

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
