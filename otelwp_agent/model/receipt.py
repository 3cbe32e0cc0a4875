"""What became of a request: one receipt for each, settled item by item.

Invariants:

* Every item of a receipt is settled exactly once: `delivered`, `sampled_out`, `filtered` or `dropped`.
* Whoever took a batch (its `consume` returned) owns its receipts: it settles them or hands the batch on.
  Whoever refused a batch (its `consume` raised) settled nothing.
* `on_settled` runs once, when the last item is settled.
* A fan-out gives each branch a fork; the parent is settled when all forks are, and the worst outcome wins.
* What a journal has (`claim`) need not be settled by this run of the agent. When who holds it stops
  (`Batch.abandon`), or one branch of a fan-out has no room for it, it may wait in the journal (`Receipt.park`). It
  comes back with a new receipt.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


SHUTDOWN = "shutdown"
"""The reason of what a stop drops."""


class Outcome(IntEnum):
    """What became of an item, the worst last."""

    DELIVERED = 0
    SAMPLED_OUT = 1
    FILTERED = 2
    DROPPED = 3

    @property
    def label(self) -> str:
        """Its name in metric labels and in `audit`."""
        return self.name.lower()


class Claim(Protocol):
    """What a journal knows of one request in one pipeline. Its receipts tell it how far the branches of a fan-out are.

    A branch is named for its exporter. What comes out of a fan-out has no branches of its own: only the first fan-out
    that a request meets is told of.
    """

    @property
    def done(self) -> Collection[str]:
        """The branches that have settled all of it already, before it was read from the journal again."""

    def entered(self, items: int) -> None:
        """Hear that items of it have come to the fan-out."""

    def branch_settled(self, branch: str, items: int) -> None:
        """Hear that a branch has settled items of it."""

    def left(self, items: int, parked: int) -> None:
        """Hear that every branch has settled items of it, but for those `parked`, which wait for one in the journal."""


class _Held:
    """The claim on what has come out of a fan-out: the journal has it, and needs to hear no more."""

    done: Collection[str] = ()

    def entered(self, items: int) -> None:
        pass

    def branch_settled(self, branch: str, items: int) -> None:
        pass

    def left(self, items: int, parked: int) -> None:
        pass


HELD: Claim = _Held()


class Ledger:
    """One account: `accepted = delivered + sampled_out + filtered + dropped + in_flight`, always.

    `key` says whose: the pipeline, the receiver, the tenant.
    """

    __slots__ = ("accepted", "dropped_reasons", "key", "settled")

    def __init__(self, key: tuple[str, str, str] = ("", "", "")) -> None:
        """Start with nothing accepted."""
        self.key = key
        self.accepted = 0
        self.settled = [0] * len(Outcome)
        self.dropped_reasons: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """Items accepted and not settled yet."""
        return self.accepted - sum(self.settled)

    def settle(self, outcome: Outcome, items: int, reason: str) -> None:
        """Count `items` as settled; `reason` says why for what was dropped."""
        self.settled[outcome] += items
        if outcome is Outcome.DROPPED:
            self.dropped_reasons[reason] = self.dropped_reasons.get(reason, 0) + items


class Receipt:
    """The account of one accepted request of `items` items, at least one."""

    __slots__ = ("branch", "claim", "items", "ledger", "on_settled", "outcomes", "parked", "pending", "reason")

    def __init__(self, items: int, on_settled: Callable[[Receipt], None] | None = None) -> None:
        """Open an account for `items`; `on_settled(receipt)` runs when the last one is settled."""
        self.items = items
        self.pending = items
        self.outcomes: list[int] | None = None
        self.ledger: Ledger | None = None
        self.on_settled = on_settled
        self.reason = ""
        self.branch = ""
        """The branch of a fan-out that it is the fork for."""
        self.parked = 0
        """Items, of those pending, that wait in the journal."""
        self.claim: Claim | None = None
        """Set where a journal has it, from which it will be read again if it is not settled."""

    @property
    def worst(self) -> Outcome:
        """The worst outcome of any item so far."""
        if self.outcomes is None:
            return Outcome.DELIVERED
        return max((outcome for outcome in Outcome if self.outcomes[outcome]), default=Outcome.DELIVERED)

    def count(self, outcome: Outcome) -> int:
        """Items settled so far as `outcome`."""
        if self.outcomes is not None:
            return self.outcomes[outcome]
        return self.items - self.pending if outcome is Outcome.DELIVERED else 0

    def settle(self, outcome: Outcome, items: int, reason: str = "") -> None:
        """Settle `items` of it. Settling more than are pending is a bug in the caller and raises `ValueError`."""
        if not items:
            return  # or the last item would be settled again
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
        """Leave `items` of it in the journal, which will bring them back. Only what has a `claim` may be parked.

        `on_settled` runs when nothing else of it is pending; `parked` tells it that there is more to come.
        """
        if not items:
            return
        self.parked += items
        if self.ledger is not None:  # of a pipeline behind a connector, which will accept them anew
            self.ledger.accepted -= items
        if self.pending == self.parked and self.on_settled is not None:
            self.on_settled(self)

    def fork(self, branches: Sequence[str]) -> list[Receipt]:
        """Return one receipt for each branch of a fan-out; this one settles when all of them have."""
        join = _Join(self, len(branches))
        forks = [Receipt(self.pending, join.branch_settled) for _ in branches]
        if self.claim is not None:
            self.claim.entered(self.pending)
            for fork, branch in zip(forks, branches, strict=True):
                fork.branch = branch
                fork.claim = HELD
        return forks

    def part(self, items: int) -> Receipt:
        """Return a receipt for `items` of it: itself if that is all that is pending, else one that settles into it."""
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
        """Leave the fast path, on which everything was delivered and no list is kept."""
        if self.outcomes is None:
            self.outcomes = [self.items - self.pending, 0, 0, 0]
        self.outcomes[outcome] += items
        if outcome is Outcome.DROPPED and reason:
            self.reason = reason


class _Join:
    """Settles a parent once every branch has been: each outcome, the worst first, as often as in the branch with most.

    Which item had which outcome, nobody knows: when two branches dropped one item each, it may have been the same one.
    What one branch has parked the parent parks: it is not settled before that branch is done with it.
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
        self.reason = branch.reason or self.reason
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
