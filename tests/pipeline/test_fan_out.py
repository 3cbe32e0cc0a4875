import asyncio
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.fan_out import FanOut, fan_out
from tests.kit.branches import Branch, Queue, a_batch, fan, journaled, names_of
from tests.kit.graphs import until
from tests.kit.senders import a_request, names_in


def test_one_branch_needs_no_fan_out():
    branch = Branch()
    assert fan_out([branch], ["only"], clock=time.monotonic, log=structlog.get_logger()) is branch


def test_every_branch_gets_the_same_bytes_and_the_receipt_waits_for_all():
    branches = [Branch(), Branch()]
    receipt, one = a_batch()
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
    receipt, one = a_batch()
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
    fan_out.consume(a_batch()[1])
    assert [len(branch.taken) for branch in (good, growing)] == [1, 1]
    assert growing.taken[0].admitted
    with pytest.raises(Overloaded):
        fan_out.consume(a_batch()[1])
    assert [len(branch.taken) for branch in (good, growing)] == [1, 1], "the next one is refused: one beyond at most"
    fan_out.close()


async def test_a_fan_out_behind_another_accepts_what_that_has_admitted():
    full, good, before = Queue(), Branch(), Branch()
    inner = fan([full, good])
    outer = fan([before, inner])
    one = a_batch()[1]
    inner.refusal = lambda _: None  # as if it had changed since
    full.is_full = True
    outer.consume(one)
    assert [len(branch.taken) for branch in (before, full, good)] == [1, 1, 1]
    inner.close()


def test_a_branch_that_refuses_for_good_loses_the_batch_alone_and_says_so():
    broken, good = Branch(late=MalformedError("no")), Branch()
    receipt, one = a_batch()
    with capture_logs() as logs:
        fan([broken, good]).consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    assert (receipt.worst, receipt.reason) == (Outcome.DROPPED, "malformed")
    assert [(log["log_level"], log["event"], log["branch"], log["items"]) for log in logs] == [
        ("error", "items dropped", "a", 3)
    ]


def test_when_every_branch_refuses_nothing_is_taken_and_the_sender_may_come_back():
    receipt, one = a_batch()
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


async def test_only_one_that_refuses_everybody_closes_the_fan_out_early():
    full, good = Queue(), Branch()
    full.capacity.share = "acme"
    full.is_full = True
    fan_out = fan([full, good])
    with pytest.raises(Overloaded):
        fan_out.consume(a_batch()[1])
    fan_out.admit()
    fan_out.close()


def test_when_every_branch_refuses_after_it_was_asked_nothing_has_entered_the_fan_out():
    one = merge([a_request("x"), journaled("y")])
    with pytest.raises(RetryableError):
        fan([Branch(late=RetryableError("not now")), Branch(late=RetryableError("not now"))]).consume(one)
    assert one.shares[1][0].claim.reported == [("entered", 1), ("entered", -1)]


async def test_the_first_of_several_refusals_is_reported():
    first, second = Queue("exporters/one"), Queue("exporters/two")
    first.is_full = second.is_full = True
    fan_out = fan([Branch(), first, second])
    with pytest.raises(Overloaded) as refused:
        fan_out.consume(a_request("x"))
    assert refused.value.capacity is first.capacity
    with pytest.raises(Overloaded, match="exporters/one is full") as refused:
        fan_out.admit()
    assert (refused.value.reason, refused.value.capacity) == ("queue_full", first.capacity)
    fan_out.close()


async def test_the_fan_out_is_not_closed_early_by_a_refusal_that_is_over_or_of_a_branch_that_is_isolated():
    full = Queue()
    fan_out = fan([full, Branch()])
    fan_out.admit()
    full.is_full = True
    with pytest.raises(Overloaded):
        fan_out.consume(a_request("x"))
    full.capacity.isolated = 1
    fan_out.admit()
    full.capacity.isolated = 0
    with pytest.raises(Overloaded):
        fan_out.admit()
    full.free()
    fan_out.admit()
    full.is_full = True
    full.capacity.refuse()
    with pytest.raises(Overloaded):
        fan_out.admit()
    full.is_full = False
    fan_out.consume(a_request("x"))
    fan_out.admit()
    fan_out.close()


async def test_a_closed_fan_out_waits_nowhere():
    branches = [Queue("exporters/one"), Queue("exporters/two")]
    for branch in branches:
        branch.is_full = True
    fan_out = fan(branches)
    with pytest.raises(Overloaded):
        fan_out.consume(journaled("x"))
    fan_out.close()
    for branch in branches:
        branch.free()
        assert not branch.capacity.watched


def test_drops_are_logged_once_in_ten_seconds_with_their_sum():
    now = [0.0]
    broken = Branch(late=MalformedError("no"))
    fan_out = fan([broken, Branch()], clock=lambda: now[0])
    with capture_logs() as logs:
        for second in (0.0, 1.0, 2.0, 11.0):
            now[0] = second
            fan_out.consume(a_request("x", "y"))
    assert [(line["event"], line["items"]) for line in logs] == [("items dropped", 2), ("items dropped", 6)]


def test_a_branch_that_refuses_for_now_after_it_was_asked_loses_the_batch_in_its_own_account():
    full, good = Queue(), Branch()
    refusal = Overloaded("full", reason="queue_full", capacity=full.capacity)
    full.consume = Branch(late=refusal).consume
    one = a_request("x", "y")
    with capture_logs() as logs:
        fan([full, good]).consume(one)
    good.taken[0].settle(Outcome.DELIVERED)
    assert full.lost == 2
    assert (one.shares[0][0].worst, one.shares[0][0].reason) == (Outcome.DROPPED, "queue_full")
    assert [(line["branch"], line["reason"]) for line in logs] == [("a", "queue_full")]


def test_the_branches_are_those_it_was_given():
    branches = [Branch(), Branch()]
    assert fan(branches).branches == branches
    with pytest.raises(ValueError, match="shorter"):
        fan(branches, names="a")


class Asked(Branch):
    """Remembers what it was asked about."""

    def __init__(self, error=None):
        super().__init__(error)
        self.asked = []

    def refusal(self, batch):
        self.asked.append(batch)
        return super().refusal(batch)


@pytest.mark.parametrize("one", [a_request("x"), journaled("x")])
def test_branches_are_asked_about_the_batch(one):
    branches = [Asked(), Asked()]
    fan_out = fan(branches)
    fan_out.refusal(one)
    assert [branch.asked for branch in branches] == [[one], [one]]
    fan_out.consume(a_request("y"))
    assert [names_in(branch.asked[-1]) for branch in branches] == [["y"], ["y"]]


async def test_an_isolated_branch_loses_the_batch_and_those_after_it_get_it():
    loop = asyncio.get_running_loop()
    stuck, first, last = Queue(clock=loop.time, isolate_after=0.01), Branch(), Branch()
    stuck.is_full = True
    fan_out = fan([first, stuck, last], clock=loop.time)
    with pytest.raises(Overloaded):
        fan_out.consume(a_request("x"))
    await until(lambda: stuck.capacity.isolated)
    assert fan_out.refusal(a_request("x")) is None
    one = a_request("x", "y")
    with capture_logs() as logs:
        fan_out.consume(one)
    assert [names_of(branch) for branch in (first, stuck, last)] == [[["x", "y"]], [], [["x", "y"]]]
    for branch in (first, last):
        branch.taken[0].settle(Outcome.DELIVERED)
    assert (one.shares[0][0].worst, one.shares[0][0].reason, stuck.lost) == (Outcome.DROPPED, "queue_full", 2)
    assert logs == [], "its isolation has been logged"
    fan_out.close()


async def test_the_refusal_of_all_says_when_to_come_back():
    first = Overloaded("full", retry_after=7.0, reason="queue_full", capacity=Queue().capacity)
    fan_out = fan([Branch(first), Branch(Overloaded("full", retry_after=1.0, capacity=Queue().capacity))])
    with pytest.raises(Overloaded) as refused:
        fan_out.consume(journaled("x"))
    assert refused.value.retry_after == 7.0
    fan_out.close()


def test_of_several_refusals_for_good_the_first_is_reported():
    for one in (a_request("x"), journaled("x")):
        with pytest.raises(MalformedError, match=r"^no$"):
            fan([Branch(late=MalformedError("no")), Branch(late=MalformedError("never"))]).consume(one)


def test_a_loss_is_reported_with_the_sum_over_all_requests():
    broken = Branch(late=MalformedError("no"))
    with capture_logs() as logs:
        fan([broken, Branch()]).consume(merge([a_request("x", "y"), a_request("z")]))
    assert [line["items"] for line in logs] == [3]


def test_several_branches_are_fed_by_a_fan_out_with_its_own_clock_and_log():
    now = [0.0]
    branches = [Branch(), Branch(late=MalformedError("no"))]
    feeding = fan_out(branches, ["a", "b"], clock=lambda: now[0], log=structlog.get_logger().bind(pipeline="traces"))
    with capture_logs() as logs:
        feeding.consume(a_request("x"))
        feeding.consume(a_request("x"))
        now[0] = 11.0
        feeding.consume(a_request("x"))
    assert names_of(branches[0]) == [["x"]] * 3
    assert [(line["pipeline"], line["branch"], line["items"]) for line in logs] == [
        ("traces", "b", 1), ("traces", "b", 2)
    ]  # fmt: skip


async def test_a_fan_out_with_one_branch_waits_for_nothing_and_isolates_nothing():
    full = Queue()
    full.is_full = True
    one = fan([full])
    with pytest.raises(Overloaded):
        one.consume(a_request("x"))
    assert one._branches[0].stalls == {}
    full.free()
    one.consume(a_request("x"))
    assert not full.taken[0].admitted, "it may still refuse"


async def test_a_fan_out_before_exporters_isolates_a_branch_after_the_time_of_its_queue():
    full = Queue(isolate_after=7.0)
    full.is_full = True
    feeding = fan_out([full, Branch()], ["a", "b"], clock=time.monotonic, log=structlog.get_logger())
    with pytest.raises(Overloaded):
        feeding.consume(a_request("x"))
    assert [stall.limit for stall in feeding._branches[0].stalls.values()] == [7.0]
    feeding.close()
    assert feeding._branches[0].stalls == {}


async def test_isolation_is_logged_by_the_fan_out_and_takes_as_long_as_its_patience_says():
    loop = asyncio.get_running_loop()
    stuck = Queue(clock=loop.time, isolate_after=0.01)
    stuck.is_full = True
    log = structlog.get_logger().bind(pipeline="traces")
    feeding = FanOut([stuck, Branch()], ["a", "b"], clock=loop.time, log=log, patience=2.0)
    with capture_logs() as logs:
        with pytest.raises(Overloaded):
            feeding.consume(a_request("x"))
        assert [stall.limit for stall in feeding._branches[0].stalls.values()] == [0.02]
        await until(lambda: stuck.capacity.isolated)
    assert [(line["event"], line["pipeline"], line["branch"]) for line in logs] == [
        ("exporter isolated", "traces", "a")
    ]
    feeding.close()
