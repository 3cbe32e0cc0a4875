"""Receipts: record the outcome of each item of an accepted request.

Invariants:

* Every item of a receipt is settled exactly once: `delivered`, `sampled_out`, `filtered` or `dropped`.
* A component that accepted a batch (its `consume` returned) owns the receipts: it settles them or forwards the batch.
  A component that refused a batch (its `consume` raised) has settled nothing.
* `on_settled` runs once, when the last item is settled.
* A fan-out gives each branch a fork; the parent is settled when all forks are, with the worst outcome of them.
* Items that a journal has (`claim`) need not be settled before the agent stops. If the component that holds them stops
  (`Batch.abandon`), or one branch of a fan-out has no capacity for them, they may be parked in the journal
  (`Receipt.park`). They are replayed with a new receipt.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


SHUTDOWN = "shutdown"
"""Reason of items that are dropped because the agent stops."""

DEAD_LETTER = "dead_letter:"
"""Prefix of the reason of dropped items that are kept as a dead letter; all other dropped items are lost."""


def kept_as_dead_letter(items_by_reason: Mapping[str, int]) -> int:
    """Return how many of the dropped items are kept as dead letters."""
    return sum([items for reason, items in items_by_reason.items() if reason.startswith(DEAD_LETTER)])


def worse_reason(first: str, second: str) -> str:
    """Return which of two reasons describes a request: the latter, but items that are lost before those that are kept.

    So a request is reported as kept only if nothing of it is lost.
    """
    return first if not second or (first and second.startswith(DEAD_LETTER)) else second


class Outcome(IntEnum):
    """Outcome of an item, in order from best to worst."""

    DELIVERED = 0
    SAMPLED_OUT = 1
    FILTERED = 2
    DROPPED = 3

    @property
    def label(self) -> str:
        """Name in metric labels and in `audit`."""
        return self.name.lower()


class Claim(Protocol):
    """A journal's entry for one request in one pipeline. Receipts report to it which branches of a fan-out are done.

    A branch has the name of its exporter. Only the first fan-out that a request passes is reported; the forks of a
    fan-out have no branches of their own.
    """

    @property
    def done(self) -> Collection[str]:
        """Branches that had already settled the whole request before it was replayed from the journal."""

    def entered(self, items: int) -> None:
        """Record that `items` items have reached the fan-out."""

    def branch_settled(self, branch: str, items: int) -> None:
        """Record that a branch has settled `items` items."""

    def left(self, items: int, parked: int) -> None:
        """Record that every branch has settled `items` items, except the `parked` ones, which wait in the journal."""


class _Held:
    """Claim of the forks of a fan-out: the journal has the request, and needs no reports about them."""

    done: Collection[str] = ()

    def entered(self, items: int) -> None:
        pass

    def branch_settled(self, branch: str, items: int) -> None:
        pass

    def left(self, items: int, parked: int) -> None:
        pass


HELD: Claim = _Held()


class Ledger:
    """One account, in which `accepted = delivered + sampled_out + filtered + dropped + in_flight` always holds.

    `key` is the pipeline, the receiver and the tenant.
    """

    __slots__ = ("accepted", "dropped_reasons", "key", "settled")

    def __init__(self, key: tuple[str, str, str] = ("", "", "")) -> None:
        """Start with nothing accepted."""
        self.key = key
        self.accepted = 0
        self.settled = [0] * len(Outcome)
        self.dropped_reasons: dict[str, int] = {}

    @property
    def dead_letters(self) -> int:
        """Number of dropped items that are kept as dead letters."""
        return kept_as_dead_letter(self.dropped_reasons)

    @property
    def in_flight(self) -> int:
        """Number of items that are accepted and not settled yet."""
        return self.accepted - sum(self.settled)

    def settle(self, outcome: Outcome, items: int, reason: str) -> None:
        """Count `items` as settled; `reason` is the reason if they were dropped."""
        self.settled[outcome] += items
        if outcome is Outcome.DROPPED:
            self.dropped_reasons[reason] = self.dropped_reasons.get(reason, 0) + items


class Receipt:
    """Record of one accepted request with `items` items, at least one."""

    __slots__ = ("branch", "claim", "items", "ledger", "on_settled", "outcomes", "parked", "pending", "reason")

    def __init__(self, items: int, on_settled: Callable[[Receipt], None] | None = None) -> None:
        """Create a receipt for `items` items; `on_settled(receipt)` runs when the last one is settled."""
        self.items = items
        self.pending = items
        self.outcomes: list[int] | None = None
        self.ledger: Ledger | None = None
        self.on_settled = on_settled
        self.reason = ""
        self.branch = ""
        """Branch of the fan-out, if this is a fork."""
        self.parked = 0
        """Number of pending items that wait in the journal."""
        self.claim: Claim | None = None
        """Entry of the journal that replays the request if it is not settled; `None` without a journal."""

    @property
    def letter_reason(self) -> str:
        """Reason of the dead letter that has the items until they are delivered, or "" if there is none."""
        return ""

    @property
    def worst(self) -> Outcome:
        """Worst outcome of any item so far."""
        if self.outcomes is None:
            return Outcome.DELIVERED
        return max((outcome for outcome in Outcome if self.outcomes[outcome]), default=Outcome.DELIVERED)

    def count(self, outcome: Outcome) -> int:
        """Return the number of items settled so far as `outcome`."""
        if self.outcomes is not None:
            return self.outcomes[outcome]
        return self.items - self.pending if outcome is Outcome.DELIVERED else 0

    def settle(self, outcome: Outcome, items: int, reason: str = "") -> None:
        """Settle `items` items. Settling more than are pending is a bug in the caller and raises `ValueError`."""
        if not items:
            return  # otherwise `on_settled` could run again
        pending = self.pending - items
        if pending < self.parked or items < 0:
            message = f"{items} items settled as {outcome.label}, but only {self.pending} of {self.items} are pending"
            raise ValueError(message)
        if self.outcomes is not None or outcome:
            self._note(outcome, items, reason)
        self.pending = pending
        if self.ledger is not None:
            self.ledger.settle(outcome, items, reason)
        if pending == self.parked and self.on_settled is not None:
            self.on_settled(self)

    def park(self, items: int) -> None:
        """Leave `items` items in the journal, which will replay them. Only allowed if there is a `claim`.

        `on_settled` runs when nothing else is pending; then `parked` is the number of items still to be replayed.
        """
        if not items:
            return
        self.parked += items
        if self.ledger is not None:  # of a pipeline behind a connector, which accepts them again at the replay
            self.ledger.accepted -= items
        if self.pending == self.parked and self.on_settled is not None:
            self.on_settled(self)

    def fork(self, branches: Sequence[str]) -> list[Receipt]:
        """Return one receipt for each branch of a fan-out; this receipt is settled when all of them are."""
        join = _Join(self, len(branches))
        forks = [Receipt(self.pending, join.branch_settled) for _ in branches]
        if self.claim is not None:
            self.claim.entered(self.pending)
            for fork, branch in zip(forks, branches, strict=True):
                fork.branch = branch
                fork.claim = HELD
        return forks

    def part(self, items: int) -> Receipt:
        """Return a receipt for `items` items: this one if no others are pending, else one that settles into it."""
        if self.pending == items:
            return self
        part = Receipt(items, self._part_settled)
        part.claim = self.claim
        return part

    def _part_settled(self, part: Receipt) -> None:
        for outcome in Outcome:
            items = part.count(outcome)
            if items:
                self.settle(outcome, items, part.reason)
        self.park(part.parked)

    def _note(self, outcome: Outcome, items: int, reason: str) -> None:
        """Count `items` by outcome. Until the first call, all settled items are delivered and no list is needed."""
        if self.outcomes is None:
            self.outcomes = [self.items - self.pending, 0, 0, 0]
        self.outcomes[outcome] += items
        if outcome is Outcome.DROPPED:
            self.reason = worse_reason(self.reason, reason)


class _Join:
    """Settles a parent receipt once every branch is settled.

    Each outcome, from worst to best, is counted as often as in the branch with the most of it. The outcome of a single
    item is not recorded: if two branches dropped one item each, it may have been the same one. Items that one branch
    has parked are parked by the parent, because that branch has not settled them.
    """

    __slots__ = ("items", "open", "parent", "parked", "reason", "worst")

    def __init__(self, parent: Receipt, branches: int) -> None:
        self.parent = parent
        self.items = parent.pending
        self.open = branches
        self.worst = [0] * len(Outcome)
        self.parked = 0
        self.reason = ""

    def branch_settled(self, branch: Receipt) -> None:
        parent = self.parent
        claim = parent.claim
        for outcome in Outcome:
            self.worst[outcome] = max(self.worst[outcome], branch.count(outcome))
        self.reason = worse_reason(self.reason, branch.reason)
        if branch.parked:
            self.parked = max(self.parked, branch.parked)
        elif claim is not None:
            claim.branch_settled(branch.branch, branch.items)
        self.open -= 1
        if self.open:
            return
        if claim is not None:
            claim.left(self.items, self.parked)
        left = self.items - self.parked
        for outcome in reversed(Outcome):
            items = min(self.worst[outcome], left)
            if items:
                left -= items
                parent.settle(outcome, items, self.reason)
        parent.park(self.parked)
