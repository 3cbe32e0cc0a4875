import asyncio
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.capacity import Offer
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import HELD, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.fan_out import fan_out
from tests.kit.branches import Branch, Queue, fan


def batch(items=3):
    receipt = Receipt(items)
    return receipt, Batch(Signal.TRACES, b"bytes", items, Origin(), ((receipt, items),))


def test_one_branch_needs_no_fan_out():
    branch = Branch()
    assert fan_out([branch], ["only"], clock=time.monotonic, log=structlog.get_logger()) is branch


def test_every_branch_gets_the_same_bytes_and_the_receipt_waits_for_all():
    branches = [Branch(), Branch()]
    receipt, one = batch()
    fan(branches).consume(one)
    assert [branch.taken[0].body for branch in branches] == [b"bytes", b"bytes"]
    branches[0].taken[0].settle(Outcome.DELIVERED)
    assert receipt.pending == 3
    branches[1].taken[0].settle(Outcome.DROPPED, "timeout")
    assert (receipt.pending, receipt.worst, receipt.reason) == (0, Outcome.DROPPED, "timeout")


@pytest.mark.parametrize("full_first", [True, False])
async def test_while_one_branch_is_full_no_branch_gets_the_batch_and_later_every_branch_does(full_first):
    full, good = Queue(), Branch()
    branches = [full, good] if full_first else [good, full]
    fan_out = fan(branches)
    receipt, one = batch()
    full.is_full = True
    with pytest.raises(Overloaded) as refused:
        fan_out.consume(one)
    assert refused.value.capacity is full.capacity
    with pytest.raises(Overloaded, match="exporters/x is full"):
        fan_out.admit()
    assert (receipt.pending, good.taken, full.taken, full.lost) == (3, [], [], 0)
    full.free()
    fan_out.admit()
    fan_out.consume(one)
    assert [len(branch.taken) for branch in branches] == [1, 1]
    fan_out.close()


async def test_what_was_admitted_is_accepted_beyond_the_capacity():
    """What a branch was asked about and what it gets may differ: a processor before the queue may have grown it."""

    class Growing(Queue):
        def refusal(self, batch):
            refusal, self.is_full = super().refusal(batch), True
            return refusal

    growing, good = Growing(), Branch()
    fan_out = fan([good, growing])
    fan_out.consume(batch()[1])
    assert [len(branch.taken) for branch in (good, growing)] == [1, 1]
    assert growing.taken[0].admitted
    with pytest.raises(Overloaded):
        fan_out.consume(batch()[1])
    assert [len(branch.taken) for branch in (good, growing)] == [1, 1], "the next one is refused: one beyond at most"
    fan_out.close()


async def test_a_fan_out_behind_another_accepts_what_that_has_admitted():
    full, good, before = Queue(), Branch(), Branch()
    inner = fan([full, good])
    outer = fan([before, inner])
    one = batch()[1]
    inner.refusal = lambda _: None  # as if it had changed since
    full.is_full = True
    outer.consume(one)
    assert [len(branch.taken) for branch in (before, full, good)] == [1, 1, 1]
    inner.close()


def test_a_branch_that_refuses_for_good_loses_the_batch_alone_and_says_so():
    broken, good = Branch(late=MalformedError("no")), Branch()
    receipt, one = batch()
    with capture_logs() as logs:
        fan([broken, good]).consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    assert (receipt.worst, receipt.reason) == (Outcome.DROPPED, "malformed")
    assert [(log["log_level"], log["event"], log["branch"], log["items"]) for log in logs] == [
        ("error", "items dropped", "a", 3)
    ]


def test_when_every_branch_refuses_nothing_is_taken_and_the_sender_may_come_back():
    receipt, one = batch()
    settled = []
    receipt.on_settled = settled.append
    with pytest.raises(RetryableError):
        fan([Branch(late=MalformedError("no")), Branch(late=RetryableError("not now"))]).consume(one)
    with pytest.raises(MalformedError):
        fan([Branch(late=MalformedError("no")), Branch(late=MalformedError("never"))]).consume(one)
    assert (receipt.pending, settled) == (3, [])
    good = [Branch(), Branch()]
    fan(good).consume(one)
    for branch in good:
        branch.taken[0].settle(Outcome.DELIVERED)
    assert len(settled) == 1, "a refused try leaves no trace in the account"


async def test_what_a_journal_has_waits_there_for_the_full_branch_alone():
    full, good = Queue(), Branch()
    full.is_full = True
    fan_out = fan([full, good])
    receipt, one = batch()
    receipt.claim = HELD
    assert fan_out.refusal(one) is None
    fan_out.consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    assert (receipt.parked, receipt.pending, full.lost) == (3, 3, 0)
    with pytest.raises(Overloaded):
        fan([full]).consume(batch()[1])


@pytest.mark.parametrize("first", [0, 1])
async def test_where_all_refuse_what_a_journal_has_it_is_offered_again_when_any_has_capacity(first):
    branches = [Queue(), Queue()]
    fan_out = fan(branches)
    receipt, one = batch()
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


async def test_only_one_that_refuses_everybody_closes_the_fan_out_early():
    full, good = Queue(), Branch()
    full.capacity.share = "acme"
    full.is_full = True
    fan_out = fan([full, good])
    with pytest.raises(Overloaded):
        fan_out.consume(batch()[1])
    fan_out.admit()
    fan_out.close()
