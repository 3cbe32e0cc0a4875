"""A fan-out before branches, with requests that a journal has."""

import asyncio

import pytest
from structlog.testing import capture_logs

from otelwp_agent.capacity import Offer
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import HELD, Outcome
from tests.kit.branches import Branch, Queue, a_batch, fan, journaled, names_of
from tests.kit.senders import a_request


async def test_what_a_journal_has_waits_there_for_the_full_branch_alone():
    full, good = Queue(), Branch()
    full.is_full = True
    fan_out = fan([full, good])
    receipt, one = a_batch()
    receipt.claim = HELD
    assert fan_out.refusal(one) is None
    fan_out.consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    assert (receipt.parked, receipt.pending, full.lost) == (3, 3, 0)
    with pytest.raises(Overloaded):
        fan([full]).consume(a_batch()[1])


@pytest.mark.parametrize("first", [0, 1])
async def test_where_all_refuse_what_a_journal_has_it_is_offered_again_when_any_has_capacity(first):
    branches = [Queue(), Queue()]
    fan_out = fan(branches)
    receipt, one = a_batch()
    receipt.claim = HELD
    for branch in branches:
        branch.is_full = True

    def again():
        try:
            fan_out.consume(one)
        except Overloaded as refusal:
            waiting.wait(refusal)

    waiting = Offer(again)
    again()
    again_refused = waiting.waiting
    branches[first].free()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert again_refused
    assert [len(branch.taken) for branch in branches] == ([1, 0] if first == 0 else [0, 1])
    branches[first].taken[0].settle(Outcome.DELIVERED)
    assert receipt.parked == 3, "for the other one"
    fan_out.close()


def test_what_a_journal_brings_back_goes_to_the_branches_that_have_not_settled_it():
    branches = [Branch(), Branch(), Branch()]
    fan(branches).consume(journaled("x", "y", done={"b"}))
    assert [names_of(branch) for branch in branches] == [[["x", "y"]], [], [["x", "y"]]]
    assert [share[0].branch for branch in (branches[0], branches[2]) for share in branch.taken[0].shares] == ["a", "c"]


def test_what_every_branch_has_settled_before_goes_to_all_of_them():
    """The configuration has changed: the branches that are left are others."""
    branches = [Branch(), Branch()]
    fan(branches).consume(journaled("x", done={"a", "b"}))
    assert [names_of(branch) for branch in branches] == [[["x"]], [["x"]]]


def test_merged_requests_are_divided_among_the_branches_that_each_is_for():
    branches = [Branch(), Branch()]
    requests = [journaled("1"), journaled("2", "3", done={"a"}), journaled("4", done={"a"}), journaled("5", done={"b"})]
    one = merge(requests)
    fan(branches).consume(one)
    assert [names_of(branch) for branch in branches] == [[["1", "5"]], [["1", "2", "3", "4"]]]
    assert [branch.taken[0].items for branch in branches] == [2, 4]
    assert [[items for _, items in branch.taken[0].shares] for branch in branches] == [[1, 1], [1, 2, 1]]
    for branch in branches:
        branch.taken[0].settle(Outcome.DELIVERED)
    assert [receipt.pending for receipt, _ in one.shares] == [0, 0, 0, 0]
    assert [receipt.claim.reported[-1] for receipt, _ in one.shares] == [
        ("left", 1, 0), ("left", 2, 0), ("left", 1, 0), ("left", 1, 0)
    ]  # fmt: skip


def test_an_encoded_batch_of_such_requests_goes_whole_to_each_branch_that_needs_a_part():
    branches = [Branch(), Branch(), Branch()]
    requests = [journaled("1", done={"c"}), journaled("2", "3", done={"a", "c"}), journaled("4", done={"b", "c"})]
    one = merge(requests).encoded("zstd", b"compressed")
    fan(branches).consume(one)
    assert [[each.body for each in branch.taken] for branch in branches] == [[b"compressed"], [b"compressed"], []]
    assert [branch.taken[0].items for branch in branches[:2]] == [2, 3]
    assert [[items for _, items in branch.taken[0].shares] for branch in branches[:2]] == [[1, 1], [1, 2]]
    assert [branch.taken[0].encodings for branch in branches[:2]] == [("zstd",), ("zstd",)]
    for branch in branches[:2]:
        assert sum(receipt.pending for receipt, _ in branch.taken[0].shares) == branch.taken[0].items
        branch.taken[0].settle(Outcome.DELIVERED)
    assert [receipt.pending for receipt, _ in one.shares] == [0, 0, 0]
    assert [receipt.claim.reported[-1] for receipt, _ in one.shares] == [("left", 1, 0), ("left", 2, 0), ("left", 1, 0)]


def test_a_branch_that_no_merged_request_is_for_gets_nothing():
    branches = [Branch(), Branch(), Branch()]
    fan(branches).consume(merge([journaled("1", done={"b", "c"}), journaled("2", done={"a", "c"})]))
    assert [names_of(branch) for branch in branches] == [[["1"]], [["2"]], []]


def test_what_a_journal_has_and_a_branch_refuses_for_good_is_dropped_and_not_parked():
    broken, good = Branch(error=MalformedError("no")), Branch()
    one = journaled("x", "y")
    with capture_logs() as logs:
        fan([broken, good]).consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    receipt = one.shares[0][0]
    assert (receipt.parked, receipt.pending, receipt.worst, receipt.reason) == (0, 0, Outcome.DROPPED, "malformed")
    assert receipt.claim.reported == [("entered", 2), ("a", 2), ("b", 2), ("left", 2, 0)]
    assert logs == [
        {
            "event": "items dropped",
            "log_level": "error",
            "branch": "a",
            "reason": "malformed",
            "items": 2,
            "error": "no",
        }
    ]


def test_what_a_journal_has_and_a_branch_refuses_for_now_is_parked_silently():
    full, good = Branch(error=RetryableError("not now")), Branch()
    one = journaled("x", "y")
    with capture_logs() as logs:
        fan([full, good]).consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    receipt = one.shares[0][0]
    assert (receipt.parked, receipt.pending) == (2, 2)
    assert receipt.claim.reported == [("entered", 2), ("b", 2), ("left", 2, 2)]
    assert logs == []


@pytest.mark.parametrize("errors", [(MalformedError("no"), RetryableError("not now")), (MalformedError("no"),)])
def test_when_every_branch_refuses_what_a_journal_has_nothing_has_entered_the_fan_out(errors):
    one = journaled("x", "y")
    with pytest.raises(type(errors[-1])):
        fan([Branch(error=error) for error in errors]).consume(one)
    receipt = one.shares[0][0]
    assert sum(report[1] for report in receipt.claim.reported) == 0
    assert (receipt.pending, receipt.parked) == (2, 0)


def test_a_single_branch_is_asked_whether_or_not_a_journal_has_the_batch():
    error = RetryableError("not now")
    for one in (a_request("x"), journaled("x")):
        assert fan([Branch(error)]).refusal(one) is error
        assert fan([Branch()]).refusal(one) is None


def test_what_a_journal_has_is_refused_only_if_every_branch_refuses():
    first, second = RetryableError("first"), RetryableError("second")
    assert fan([Branch(first), Branch(second)]).refusal(journaled("x")) is first
    assert fan([Branch(first), Branch()]).refusal(journaled("x")) is None
    assert fan([Branch(first), Branch()]).refusal(a_request("x")) is first
    assert fan([Branch(), Branch(second)]).refusal(a_request("x")) is second
    assert fan([Branch(), Branch()]).refusal(a_request("x")) is None


async def test_where_all_refuse_what_a_journal_has_the_first_refusal_is_reported_until_any_is_over():
    branches = [Queue("exporters/one"), Queue("exporters/two")]
    for branch in branches:
        branch.is_full = True
    fan_out = fan(branches)
    with pytest.raises(Overloaded, match="full") as refused:
        fan_out.consume(journaled("x"))
    capacity = refused.value.capacity
    assert (refused.value.reason, refused.value.retry_after) == ("queue_full", Overloaded("full").retry_after)
    assert (capacity.owner, capacity.short, capacity.root) == ("fan-out", True, branches[0].capacity)
    branches[1].free()
    await asyncio.sleep(0)
    assert not capacity.short
    assert not branches[0].capacity.watched or branches[0].capacity.short, "nothing waits at the others any more"
    fan_out.close()
