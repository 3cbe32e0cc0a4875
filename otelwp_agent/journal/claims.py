"""Track one journaled request: the pipelines, and their branches, that have settled all of it.

An entry has a claim for each pipeline that it is fed to. A claim is closed when its receipt is settled, or when the
rest of it waits in the journal for a branch of the fan-out that had no capacity (`Receipt.park`). An entry whose claims
are all closed is released, or waits to be read again for its open branches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otelwp_agent.model.receipt import Outcome, Receipt, worse_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.journal.segment import Segment
    from otelwp_agent.model.receipt import Ledger

Done = frozenset[tuple[int, str]]
"""Branches that have settled all of an entry: (place of the pipeline in its context, branch); "" is all branches."""

NOTHING: Done = frozenset()
_NO_BRANCHES: frozenset[str] = frozenset()


class Keeper(Protocol):
    """Gets the reports of claims: the journal."""

    def settled(self, ledger: Ledger) -> None:
        """Record that a ledger has changed."""

    def progressed(self, claim: JournalClaim) -> None:
        """Record that a branch has settled items while others have not."""

    def closed(self, entry: JournaledRequest) -> None:
        """Record that the last claim of an entry was closed."""


class JournaledRequest:
    """One request, from the moment at which it is fed to its pipelines until it is released or waits again."""

    __slots__ = (
        "done",
        "index",
        "items",
        "keeper",
        "on_closed",
        "open",
        "outcomes",
        "parked",
        "reason",
        "segment",
        "size",
    )

    def __init__(self, keeper: Keeper, segment: Segment, index: int, items: int, size: int) -> None:
        """Represent entry number `index` of `segment`, with `items` items and `size` bytes there."""
        self.keeper = keeper
        self.segment = segment
        self.index = index
        self.items = items
        self.size = size
        self.open = 0
        """Number of open claims."""
        self.parked = False
        """Whether a part of it waits in the journal."""
        self.done = NOTHING
        self.outcomes: list[int] | None = None
        """Items of each outcome, over all pipelines; only if a sender waits for the outcome."""
        self.reason = ""
        self.on_closed: Callable[[JournaledRequest], None] | None = None
        """Called when the entry is closed, if a sender waits for the outcome."""

    @property
    def seq(self) -> int:
        """Its number in the journal."""
        return self.segment.first + self.index


class JournalClaim:
    """Tracks the outcome of an entry in one pipeline (`model.receipt.Claim`)."""

    __slots__ = ("_branches", "_entered", "_joined", "_parked", "done", "entry", "ledger", "pipeline", "receipt")

    def __init__(self, entry: JournaledRequest, pipeline: int, ledger: Ledger) -> None:
        """Open a claim for the pipeline at this place in the entry's context."""
        self.entry = entry
        self.pipeline = pipeline
        self.ledger = ledger
        self.done = frozenset(name for place, name in entry.done if place == pipeline) if entry.done else _NO_BRANCHES
        self._branches: dict[str, int] | None = None
        self._entered = 0
        self._joined = 0
        self._parked = 0
        receipt = self.receipt = Receipt(entry.items, self._closed)
        receipt.claim = self
        entry.open += 1

    def entered(self, items: int) -> None:
        """Record that items of it have reached the fan-out."""
        self._entered += items

    def branch_settled(self, branch: str, items: int) -> None:
        """Record that a branch has settled items of it."""
        branches = self._branches
        if branches is None:
            branches = self._branches = {}
        branches[branch] = branches.get(branch, 0) + items
        self.entry.keeper.progressed(self)

    def left(self, items: int, parked: int) -> None:
        """Record that every branch has settled items of it, except those `parked`, which wait in the journal."""
        self._joined += items
        self._parked += parked

    def branches_done(self) -> frozenset[str]:
        """Return the branches that have settled all of it, if all of it has reached the fan-out."""
        receipt = self.receipt
        running = self._entered - self._joined
        if self._branches is None or receipt.pending - receipt.parked != running or receipt.parked != self._parked:
            return self.done  # a part has not reached the fan-out yet, or waits without having reached it
        return self.done.union(name for name, items in self._branches.items() if items == self._entered)

    def refuse(self) -> None:
        """Close the claim with nothing settled: the pipeline had no capacity."""
        self.receipt.park(self.receipt.pending)

    def _closed(self, receipt: Receipt) -> None:
        entry = self.entry
        entry.open -= 1
        if receipt.parked:
            entry.parked = True
            entry.done |= {(self.pipeline, name) for name in self.branches_done()}
        else:
            self._settle(receipt)
            if entry.open or entry.parked:
                entry.done |= {(self.pipeline, "")}
        receipt.on_settled = receipt.claim = None  # breaks a reference cycle of the three
        if not entry.open:
            entry.keeper.closed(entry)
        elif not receipt.parked:
            entry.keeper.progressed(self)

    def _settle(self, receipt: Receipt) -> None:
        """Add the outcomes of all items to the ledger at once: a partly settled request is replayed as a whole."""
        ledger, entry = self.ledger, self.entry
        entry.keeper.settled(ledger)
        if receipt.outcomes is None:
            ledger.settled[Outcome.DELIVERED] += receipt.items
        else:
            for outcome in Outcome:
                if receipt.outcomes[outcome]:
                    ledger.settle(outcome, receipt.outcomes[outcome], receipt.reason)
        if entry.on_closed is not None:
            before = entry.outcomes or [0] * len(Outcome)
            entry.outcomes = [items + receipt.count(outcome) for outcome, items in zip(Outcome, before, strict=True)]
            entry.reason = worse_reason(entry.reason, receipt.reason)
