from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from otelwp_agent.model.batch import Batch, Origin, divide, merge
from otelwp_agent.model.projections import count, split_batch
from otelwp_agent.model.receipt import HELD, Ledger, Outcome, Receipt
from otelwp_agent.model.selection import Selection
from otelwp_agent.model.signal import Signal
from tests.kit.otlp import delimited

ORIGIN = Origin("otlp", "http", "tenant", {"user-agent": "test"})


def body_of(items: int) -> bytes:
    return delimited(1, delimited(2, delimited(2, b"") * items)) if items else b""


def a_batch(*shares: int) -> Batch:
    return Batch(Signal.TRACES, body_of(sum(shares)), sum(shares), ORIGIN, [(Receipt(size), size) for size in shares])


def receipts(batch: Batch) -> list[Receipt]:
    return [receipt for receipt, _ in batch.shares]


def test_with_another_body_all_else_stays():
    batch = Batch(Signal.LOGS, b"body", 1, ORIGIN, [(Receipt(1), 1)], ("zstd",))
    other = batch.with_body(b"longer body")
    assert (other.body, other.items, other.encodings, other.signal) == (b"longer body", 1, ("zstd",), Signal.LOGS)
    assert other.origin is ORIGIN
    assert other.shares is batch.shares
    assert (len(batch), len(other)) == (4, 11)


def test_merges_in_order():
    first, second = a_batch(1, 2), a_batch(3)
    merged = merge([first, second])
    assert merged.body == first.body + second.body
    assert merged.items == 6 == count(Signal.TRACES, merged.body)
    assert merged.shares == [*first.shares, *second.shares]
    assert merged.origin is ORIGIN
    assert merge([first]) is first
    assert merge([first], Origin("other")).origin.receiver == "other"


def test_encoded_bodies_are_not_merged():
    plain, encoded = a_batch(1), a_batch(2).encoded("zstd", b"compressed")
    for batches in ([plain, encoded], [encoded, plain], [encoded, encoded]):
        with pytest.raises(ValueError, match="encoded with zstd cannot be merged"):
            merge(batches)
    alone = merge([encoded], Origin(tenant="acme"))
    assert (alone.body, alone.encodings, alone.origin.tenant) == (b"compressed", ("zstd",), "acme")


class Again:
    size = 100


def test_encodings_are_added_in_order_and_only_the_last_body_can_be_sealed_again():
    again = Again()
    plain = a_batch(1, 2)
    plain.admitted = True
    sealed = plain.encoded("zstd", b"compressed").encoded("sealed", b"envelope", again)
    assert (sealed.body, sealed.encodings, sealed.items, sealed.admitted) == (b"envelope", ("zstd", "sealed"), 3, True)
    assert sealed.shares is plain.shares
    assert (plain.plain_size, sealed.plain_size) == (0, len(plain.body))
    assert sealed.fork(["a"])[0].plain_size == sealed.with_body(sealed.body).plain_size == len(plain.body)
    assert (plain.encodings, plain.memory, sealed.memory) == ((), len(plain.body), len(b"envelope") + 100)
    assert [fork.resealable for fork in sealed.fork(["a", "b"])] == [again, again]
    assert sealed.with_body(b"other").resealable is None
    assert sealed.with_body(sealed.body).encodings == ("zstd", "sealed")


def test_settles_every_item():
    batch = a_batch(1, 2)
    batch.settle(Outcome.DROPPED, "timeout")
    assert [(receipt.count(Outcome.DROPPED), receipt.reason) for receipt in receipts(batch)] == [
        (1, "timeout"),
        (2, "timeout"),
    ]
    with pytest.raises(ValueError, match="only 0 of 1 are pending"):
        batch.settle(Outcome.DELIVERED)


def test_forks_of_a_part_settle_into_the_whole():
    whole = a_batch(5)
    (receipt,) = receipts(whole)
    left, right = split_batch(whole, [2, 3])
    forks = left.fork("ab")
    forks[0].settle(Outcome.DELIVERED)
    assert receipt.pending == 5
    forks[1].settle(Outcome.DROPPED, "queue_full")
    assert (receipt.pending, receipt.count(Outcome.DROPPED), receipt.reason) == (3, 2, "queue_full")
    for fork in right.fork("a"):
        fork.settle(Outcome.DELIVERED)
    assert receipt.pending == 0


@given(st.lists(st.integers(1, 5), max_size=6), st.data())
def test_divides_shares_in_order(owned, data):
    shares = [(Receipt(items), items) for items in owned]
    total = sum(owned)
    edges = sorted(data.draw(st.lists(st.integers(0, total), max_size=5)))
    sizes = [end - start for start, end in zip([0, *edges], [*edges, total], strict=True)]
    parts = divide(shares, sizes)
    assert [sum(items for _, items in part) for part in parts] == sizes
    owners = [id(receipt) for receipt, items in shares for _ in range(items)]
    assert [id(receipt) for part in parts for receipt, items in part for _ in range(items)] == owners
    assert all(items > 0 for part in parts for _, items in part)


@pytest.mark.parametrize("sizes", [[], [2], [4], [2, 2]])
def test_sizes_that_do_not_add_up_are_a_bug_in_the_caller(sizes):
    with pytest.raises(ValueError, match="cannot be divided"):
        divide([(Receipt(3), 3)], sizes)


Item = tuple[int, int]
"""A request's number, and the item's in it."""


class Pipeline(RuleBasedStateMachine):
    """Batches that are merged, cut, forked, thinned and settled in any order, beside a model that knows each item."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.requests: list[Receipt] = []
        self.settled: list[Receipt] = []
        self.live: dict[int, tuple[Batch, list[Item]]] = {}
        self.worst: dict[Item, Outcome] = {}

    def _put(self, batch: Batch, items: list[Item]) -> Batch:
        self.live[id(batch)] = (batch, items)
        return batch

    def _take(self, batch: Batch) -> list[Item]:
        return self.live.pop(id(batch))[1]

    def _note(self, items: list[Item], outcome: Outcome) -> None:
        for item in items:
            self.worst[item] = max(outcome, self.worst.get(item, outcome))

    @rule(target=batches, size=st.integers(1, 6))
    def accept(self, size):
        receipt = Receipt(size, self.settled.append)
        receipt.ledger = self.ledger
        self.ledger.accepted += size
        items = [(len(self.requests), item) for item in range(size)]
        self.requests.append(receipt)
        return self._put(Batch(Signal.TRACES, body_of(size), size, ORIGIN, [(receipt, size)]), items)

    @rule(target=batches, first=consumes(batches), second=consumes(batches))
    def merge(self, first, second):
        items = self._take(first) + self._take(second)
        return self._put(merge([first, second]), items)

    @rule(target=batches, batch=consumes(batches), data=st.data())
    def split(self, batch, data):
        items = self._take(batch)
        edge = data.draw(st.integers(1, batch.items))
        sizes = [size for size in (edge, batch.items - edge) if size]
        parts = split_batch(batch, sizes)
        return multiple(*[
            self._put(part, owned) for part, owned in zip(parts, [items[:edge], items[edge:]], strict=False)
        ])  # fmt: skip

    @rule(target=batches, batch=consumes(batches), branches=st.integers(1, 3))
    def fork(self, batch, branches):
        items = self._take(batch)
        return multiple(*[self._put(fork, items) for fork in batch.fork("abcdef"[:branches])])

    @rule(target=batches, batch=consumes(batches), outcome=st.sampled_from(Outcome), data=st.data())
    def thin(self, batch, outcome, data):
        items = self._take(batch)
        kept = [data.draw(st.integers(0, size)) for _, size in batch.shares]
        start, keeps, gone, verdicts = 0, [], [], b""
        for (_, size), remain in zip(batch.shares, kept, strict=True):
            keeps += items[start : start + remain]
            gone += items[start + remain : start + size]
            verdicts += bytes(remain) + b"\1" * (size - remain)
            start += size
        selection = Selection(batch, body_of(sum(kept)), verdicts)
        self._note(gone, outcome)
        selection.settle([(outcome, "reason")])
        return multiple() if selection.batch is None else self._put(selection.batch, keeps)

    @rule(batch=consumes(batches), outcome=st.sampled_from(Outcome))
    def settle(self, batch, outcome):
        self._note(self._take(batch), outcome)
        batch.settle(outcome, "reason")

    @invariant()
    def nothing_disappears(self):
        alive = [item for _, items in self.live.values() for item in items]
        for number, receipt in enumerate(self.requests):
            assert sum(receipt.count(outcome) for outcome in Outcome) + receipt.pending == receipt.items
            held = {item for item in alive if item[0] == number}
            assert len(held) <= receipt.pending
            assert bool(held) == bool(receipt.pending)
            assert self.settled.count(receipt) == (0 if held else 1)
        pending = sum(receipt.pending for receipt in self.requests)
        assert self.ledger.in_flight == pending == self.ledger.accepted - sum(self.ledger.settled)
        for batch, items in self.live.values():
            assert batch.items == len(items) == sum(size for _, size in batch.shares) == count(batch.signal, batch.body)

    def teardown(self):
        for batch, items in list(self.live.values()):
            self._note(items, Outcome.DELIVERED)
            batch.settle(Outcome.DELIVERED)
        self.live.clear()
        self.nothing_disappears()
        assert self.ledger.in_flight == 0
        for number, receipt in enumerate(self.requests):
            assert receipt.worst is max(outcome for item, outcome in self.worst.items() if item[0] == number)


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(max_examples=60, stateful_step_count=25)


def test_what_no_journal_keeps_is_dropped_when_it_is_abandoned():
    batch = a_batch(2, 3)
    kept, lost = receipts(batch)
    kept.claim = HELD
    left, right = batch.fork("ab")

    assert left.abandon() == right.abandon() == 3
    assert (kept.pending, kept.parked, lost.pending) == (2, 2, 0)
    assert (lost.worst, lost.reason) == (Outcome.DROPPED, "shutdown")
