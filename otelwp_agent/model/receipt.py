"""What became of a request: one receipt for each, settled item by item.

Invariants:

* Every item of a receipt is settled exactly once: `delivered`, `sampled_out`, `filtered` or `dropped`.
* Whoever took a batch (its `consume` returned) owns its receipts: it settles them or hands the batch on.
  Whoever refused a batch (its `consume` raised) settled nothing.
* `on_settled` runs once, when the last item is settled.
* A fan-out gives each branch a fork; the parent is settled when all forks are, and the worst outcome wins.
* What a journal keeps (`kept`) may be let go of without being settled when the agent stops: it comes back at the next
  start (`Batch.abandon`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Ledger:
    """The sums of one pipeline: `accepted = delivered + sampled_out + filtered + dropped + in_flight`, always."""

    __slots__ = ("accepted", "dropped_reasons", "settled")

    def __init__(self) -> None:
        """Start with nothing accepted."""
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

    __slots__ = ("items", "kept", "ledger", "on_settled", "outcomes", "pending", "reason")

    def __init__(self, items: int, on_settled: Callable[[Receipt], None] | None = None) -> None:
        """Open an account for `items`; `on_settled(receipt)` runs when the last one is settled."""
        self.items = items
        self.pending = items
        self.outcomes: list[int] | None = None
        self.ledger: Ledger | None = None
        self.on_settled = on_settled
        self.reason = ""
        self.kept = False
        """Whether a journal has it, from which it will be read again if it is not settled."""

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
        if pending < 0 or items < 0:
            message = f"{items} items settled as {outcome.label}, but only {self.pending} of {self.items} are pending"
            raise ValueError(message)
        if self.outcomes is not None or outcome:
            self._note(outcome, items, reason)
        self.pending = pending
        if self.ledger is not None:
            self.ledger.settle(outcome, items, reason)
        if not pending and self.on_settled is not None:
            self.on_settled(self)

    def fork(self, branches: int) -> list[Receipt]:
        """Return one receipt for each branch of a fan-out; this one settles when all of them have."""
        join = _Join(self, branches)
        forks = [Receipt(self.pending, join.branch_settled) for _ in range(branches)]
        if self.kept:
            for fork in forks:
                fork.kept = True
        return forks

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
    """

    __slots__ = ("open", "parent", "reason", "worst")

    def __init__(self, parent: Receipt, branches: int) -> None:
        self.parent = parent
        self.open = branches
        self.worst = [0] * len(Outcome)
        self.reason = ""

    def branch_settled(self, branch: Receipt) -> None:
        for outcome in Outcome:
            self.worst[outcome] = max(self.worst[outcome], branch.count(outcome))
        self.reason = branch.reason or self.reason
        self.open -= 1
        if self.open:
            return
        left = self.parent.pending
        for outcome in reversed(Outcome):
            items = min(self.worst[outcome], left)
            if items:
                left -= items
                self.parent.settle(outcome, items, self.reason)
