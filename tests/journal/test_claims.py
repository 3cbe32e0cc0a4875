from types import SimpleNamespace

import pytest

from otelwp_agent.journal.claims import JournalClaim, JournaledRequest
from otelwp_agent.model.receipt import Ledger, Outcome


class Keeper:
    def __init__(self):
        self.told = []

    def settled(self, ledger):
        self.told.append(("settled", ledger.key[0]))

    def progressed(self, claim):
        self.told.append(("progressed", claim.pipeline, claim.branches_done()))

    def closed(self, entry):
        self.told.append(("closed", entry.parked, entry.done))


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def entry(keeper):
    return JournaledRequest(keeper, None, 0, 4, 40)


def claims(entry, *pipelines):
    ledgers = [Ledger((pipeline, "otlp", "")) for pipeline in pipelines]
    for ledger in ledgers:
        ledger.accepted = entry.items
    return [JournalClaim(entry, place, ledger) for place, ledger in enumerate(ledgers)]


def test_an_account_moves_when_a_pipeline_has_settled_all_and_the_entry_closes_when_every_pipeline_has(entry, keeper):
    one, two = claims(entry, "a", "b")
    one.receipt.settle(Outcome.SAMPLED_OUT, 3)
    assert (one.ledger.in_flight, keeper.told) == (4, [])
    one.receipt.settle(Outcome.DROPPED, 1, "malformed")
    assert (one.ledger.settled, one.ledger.dropped_reasons) == ([0, 3, 0, 1], {"malformed": 1})
    assert keeper.told == [("settled", "a"), ("progressed", 0, frozenset())]
    assert entry.done == {(0, "")}
    two.receipt.settle(Outcome.DELIVERED, 4)
    assert keeper.told[2:] == [("settled", "b"), ("closed", False, {(0, "")})]


def test_what_is_refused_waits_whole_and_in_no_account_is_anything_settled(entry, keeper):
    (claim,) = claims(entry, "a")
    claim.refuse()
    assert keeper.told == [("closed", True, frozenset())]
    assert claim.ledger.in_flight == 4
    with pytest.raises(ValueError, match="4 items settled"):
        claim.receipt.settle(Outcome.DELIVERED, 4)


def test_a_branch_is_done_when_everything_has_come_to_the_fan_out_and_it_has_settled_all_of_that(entry):
    (claim,) = claims(entry, "a")
    first, second = claim.receipt.part(1), claim.receipt.part(3)
    x, _ = first.fork("xy")
    x.settle(Outcome.DELIVERED, 1)
    assert claim.branches_done() == frozenset(), "three items are still on their way"
    x, y = second.fork("xy")
    assert claim.branches_done() == frozenset()
    x.settle(Outcome.DELIVERED, 3)
    assert claim.branches_done() == {"x"}
    y.park(3)
    assert claim.branches_done() == {"x"}


def test_no_branch_is_done_with_what_never_came_to_it(entry, keeper):
    (claim,) = claims(entry, "a")
    first, second = claim.receipt.part(1), claim.receipt.part(3)
    first.park(1)  # who holds it before the fan-out stops
    x, y = second.fork("xy")
    x.settle(Outcome.DELIVERED, 3)
    y.park(3)
    assert keeper.told[-1] == ("closed", True, frozenset())


def test_what_is_left_after_a_crash_adds_to_what_was_done_before_it(entry, keeper):
    entry.done = frozenset({(0, "x"), (1, ""), (2, "y")})
    (claim,) = claims(entry, "a")
    assert claim.done == {"x"}
    y, z = claim.receipt.fork("yz")
    y.settle(Outcome.DELIVERED, 4)
    z.park(4)
    assert keeper.told[-1] == ("closed", True, {(0, "x"), (0, "y"), (1, ""), (2, "y")})


def test_who_waits_hears_of_all_pipelines_together(entry):
    heard = []
    entry.on_closed = heard.append
    one, two = claims(entry, "a", "b")
    one.receipt.settle(Outcome.DROPPED, 4, "malformed")
    two.receipt.settle(Outcome.DELIVERED, 4)
    assert (entry.outcomes, entry.reason) == ([4, 0, 0, 4], "malformed")


def test_a_new_entry_has_nothing_done_and_nobody_who_waits(entry, keeper):
    assert (entry.open, entry.parked, entry.done, entry.outcomes, entry.reason) == (0, False, frozenset(), None, "")
    assert entry.on_closed is None
    entry.segment = SimpleNamespace(first=100)
    entry.index = 7
    assert entry.seq == 107
    (claim,) = claims(entry, "a")
    assert (entry.open, claim.done, claim.pipeline, keeper.told) == (1, frozenset(), 0, [])
    assert (claim.receipt.items, claim.receipt.claim) == (4, claim)


def test_outcomes_are_only_summed_up_for_somebody_who_waits(entry):
    (claim,) = claims(entry, "a")
    claim.receipt.settle(Outcome.DROPPED, 4, "malformed")
    assert (entry.outcomes, entry.reason) == (None, "")


def test_the_last_reason_of_a_drop_is_reported(entry):
    entry.on_closed = lambda _: None
    for claim, outcome, reason in zip(
        claims(entry, "a", "b", "c"),
        (Outcome.DROPPED, Outcome.FILTERED, Outcome.DROPPED),
        ("malformed", "", "queue_full"),
        strict=True,
    ):
        claim.receipt.settle(outcome, 4, reason)
    assert (entry.outcomes, entry.reason) == ([0, 0, 4, 8], "queue_full")


def test_a_pipeline_that_drops_nothing_leaves_the_reason_of_the_one_before(entry):
    entry.on_closed = lambda _: None
    one, two = claims(entry, "a", "b")
    one.receipt.settle(Outcome.DROPPED, 4, "malformed")
    two.receipt.settle(Outcome.SAMPLED_OUT, 4)
    assert (entry.outcomes, entry.reason) == ([0, 4, 0, 4], "malformed")


def test_a_closed_claim_lets_go_of_its_receipt(entry):
    (claim,) = claims(entry, "a")
    receipt = claim.receipt
    receipt.settle(Outcome.DELIVERED, 4)
    assert (receipt.claim, receipt.on_settled) == (None, None)


def test_a_branch_has_settled_all_of_an_entry_when_its_parts_add_up(entry, keeper):
    (claim,) = claims(entry, "a")
    first, second = claim.receipt.part(1), claim.receipt.part(3)
    forks = [first.fork("xy"), second.fork("xy")]
    forks[0][0].settle(Outcome.DELIVERED, 1)
    assert claim.branches_done() == frozenset()
    forks[1][0].settle(Outcome.DROPPED, 3, "timeout")
    assert claim.branches_done() == {"x"}
    assert keeper.told == [("progressed", 0, frozenset()), ("progressed", 0, {"x"})]


@pytest.mark.parametrize("first_parks", [False, True])
def test_a_branch_is_done_with_an_entry_that_came_to_the_fan_out_in_parts(entry, keeper, first_parks):
    (claim,) = claims(entry, "a")
    first, second = (claim.receipt.part(items).fork("xy") for items in (1, 3))
    first[0].settle(Outcome.DELIVERED, 1)
    if first_parks:
        first[1].park(1)
    else:
        first[1].settle(Outcome.DELIVERED, 1)
    second[0].settle(Outcome.DELIVERED, 3)
    second[1].park(3)
    assert keeper.told[-1] == ("closed", True, {(0, "x")})


def test_a_branch_that_refused_and_was_taken_back_has_settled_nothing(entry):
    (claim,) = claims(entry, "a")
    claim.receipt.fork("xy")
    claim.entered(-4)
    assert claim.branches_done() == frozenset()


def test_of_an_entry_that_waits_it_is_known_which_pipelines_and_branches_are_done(entry, keeper):
    one, two, three = claims(entry, "a", "b", "c")
    x, y = one.receipt.fork("xy")
    x.settle(Outcome.DELIVERED, 4)
    y.park(4)
    assert (entry.parked, entry.done, entry.open) == (True, {(0, "x")}, 2)
    two.receipt.settle(Outcome.DELIVERED, 4)
    three.receipt.settle(Outcome.DELIVERED, 4)
    assert keeper.told[-1] == ("closed", True, {(0, "x"), (1, ""), (2, "")})
    assert keeper.told[-2] == ("settled", "c")


def test_the_last_pipeline_of_an_entry_leaves_no_note_of_what_is_done(entry, keeper):
    (claim,) = claims(entry, "a")
    claim.receipt.settle(Outcome.DELIVERED, 4)
    assert keeper.told == [("settled", "a"), ("closed", False, frozenset())]
    assert claim.ledger.settled == [4, 0, 0, 0]


def test_what_is_parked_in_part_keeps_the_account_of_the_whole_open(entry, keeper):
    (claim,) = claims(entry, "a")
    claim.receipt.settle(Outcome.FILTERED, 1)
    claim.receipt.park(3)
    assert claim.ledger.in_flight == 4
    assert keeper.told == [("closed", True, frozenset())]
