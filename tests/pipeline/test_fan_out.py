import asyncio
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.capacity import Offer
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.receipt import HELD, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.fan_out import FanOut, fan_out
from tests.kit.branches import Branch, Queue, fan
from tests.kit.claims import RecordedClaim
from tests.kit.graphs import until
from tests.kit.senders import a_request, names_in


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


def journaled(*names, done=()):
    """A request that a journal has: a span for each of `names`."""
    one = a_request(*names)
    one.shares[0][0].claim = RecordedClaim(done)
    return one


def names_of(branch):
    return [names_in(each) for each in branch.taken]


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


def test_when_every_branch_refuses_after_it_was_asked_nothing_has_entered_the_fan_out():
    one = merge([a_request("x"), journaled("y")])
    with pytest.raises(RetryableError):
        fan([Branch(late=RetryableError("not now")), Branch(late=RetryableError("not now"))]).consume(one)
    assert one.shares[1][0].claim.reported == [("entered", 1), ("entered", -1)]


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
