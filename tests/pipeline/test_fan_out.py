import pytest

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.fan_out import FanOut, fan_out


class Branch:
    def __init__(self, refusal=None):
        self.refusal = refusal
        self.taken = []

    def consume(self, batch):
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(batch)


def batch(items=3):
    receipt = Receipt(items)
    return receipt, Batch(Signal.TRACES, b"bytes", items, Origin(), ((receipt, items),))


def test_one_branch_needs_no_fan_out():
    branch = Branch()
    assert fan_out([branch], ["only"]) is branch


def test_every_branch_gets_the_same_bytes_and_the_receipt_waits_for_all():
    branches = [Branch(), Branch()]
    receipt, one = batch()
    fan_out(branches, "ab").consume(one)
    assert [branch.taken[0].body for branch in branches] == [b"bytes", b"bytes"]
    branches[0].taken[0].settle(Outcome.DELIVERED)
    assert receipt.pending == 3
    branches[1].taken[0].settle(Outcome.DROPPED, "timeout")
    assert (receipt.pending, receipt.worst, receipt.reason) == (0, Outcome.DROPPED, "timeout")


@pytest.mark.parametrize("full_first", [True, False])
def test_a_full_branch_loses_the_batch_alone(full_first):
    full, good = Branch(Overloaded("full", reason="queue_full")), Branch()
    receipt, one = batch()
    FanOut([full, good] if full_first else [good, full], "ab").consume(one)
    assert len(good.taken) == 1
    good.taken[0].settle(Outcome.DELIVERED)
    assert (receipt.worst, receipt.reason) == (Outcome.DROPPED, "queue_full")


def test_when_every_branch_refuses_nothing_is_taken_and_the_sender_may_come_back():
    receipt, one = batch()
    settled = []
    receipt.on_settled = settled.append
    with pytest.raises(Overloaded):
        FanOut([Branch(MalformedError("no")), Branch(Overloaded("full"))], "ab").consume(one)
    with pytest.raises(MalformedError):
        FanOut([Branch(MalformedError("no")), Branch(MalformedError("never"))], "ab").consume(one)
    assert (receipt.pending, settled) == (3, [])
    good = [Branch(), Branch()]
    FanOut(good, "ab").consume(one)
    for branch in good:
        branch.taken[0].settle(Outcome.DELIVERED)
    assert len(settled) == 1, "a refused try leaves no trace in the account"


def test_a_branch_that_refused_is_told_what_it_lost():
    lost = []
    full = Overloaded("full")
    full.given_up = lost.append
    FanOut([Branch(full), Branch()], "ab").consume(batch(3)[1])
    assert lost == [3]


def test_when_every_branch_refuses_who_gives_up_tells_all_of_them():
    one, two, lost = Overloaded("full"), Overloaded("full as well"), []
    one.given_up = lambda items: lost.append(("one", items))
    two.given_up = lambda items: lost.append(("two", items))
    with pytest.raises(Overloaded) as refusal:
        FanOut([Branch(one), Branch(two), Branch(MalformedError("no"))], "abc").consume(batch(3)[1])
    assert lost == []  # it may be offered again
    refusal.value.given_up(3)
    assert lost == [("one", 3), ("two", 3)]
