"""Collect changes for the next commit, and keep the ledgers as they are on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otelwp_agent.journal.claims import JournalClaim, JournaledRequest
    from otelwp_agent.journal.commit_builder import CommitBuilder
    from otelwp_agent.journal.records import Account, ExporterRow
    from otelwp_agent.journal.segment import Segment
    from otelwp_agent.model.receipt import Ledger

EXPORTERS_INTERVAL = 1.0
"""Seconds between two commits with the sums of the exporters."""


class PendingChanges:
    """Changed ledgers, released entries and settled branches; each commit takes all of them."""

    def __init__(self) -> None:
        """Start without changes."""
        self.written: dict[Ledger, Account] = {}
        """The ledgers as of the last commit."""
        self.exporters: Callable[[], Sequence[ExporterRow]] = list
        """Returns the sums of the exporters."""
        self._changed: dict[Ledger, None] = {}
        self._released: list[tuple[Segment, int]] = []
        self._progressed: list[JournalClaim] = []
        self._branches: list[tuple[int, int, str]] = []
        """Settled branches of entries that wait again."""
        self._repeated: list[int] = []
        """Numbers of entries whose release was in a segment that disappeared."""
        self._tell_exporters = 0.0

    def __bool__(self) -> bool:
        """Return whether there is a change to write."""
        return bool(self._changed or self._released or self._progressed or self._branches or self._repeated)

    def changed(self, ledger: Ledger) -> None:
        """Record that a ledger has changed."""
        self._changed[ledger] = None

    def progressed(self, claim: JournalClaim) -> None:
        """Record that a branch has settled items while others have not."""
        self._progressed.append(claim)

    def released(self, segment: Segment, index: int) -> None:
        """Record that an entry is settled."""
        self._released.append((segment, index))

    def waits(self, entry: JournaledRequest) -> None:
        """Record the settled branches of an entry that waits for the others."""
        self._branches += [(entry.seq, place, name) for place, name in entry.done]

    def repeat(self, released: Iterable[int], branches: Iterable[tuple[int, int, str]]) -> None:
        """Write released entries and settled branches again: the commits with them are lost."""
        self._repeated += released
        self._branches += branches

    def moved(self, builder: CommitBuilder, seq: int, done: Sequence[tuple[int, str]]) -> None:
        """Record the branches that settled an entry while `builder` moved it to number `seq`."""
        rows = [(seq, place, name) for place, name in done]
        self._branches += [row for row in rows if row not in builder.branches]

    def take_branches(self) -> list[tuple[int, int, str]]:
        """Remove and return settled branches of open entries. Call it before entries move, which takes theirs along."""
        rows = dict.fromkeys(self._branches)
        for claim in self._progressed:
            entry = claim.entry
            if entry.open or entry.parked:
                entry.done = entry.done.union([(claim.pipeline, name) for name in claim.branches_done()])
                rows.update(dict.fromkeys((entry.seq, place, name) for place, name in entry.done))
        self._progressed, self._branches = [], []
        return list(rows)

    def close(self, builder: CommitBuilder) -> None:
        """Finish a builder with a commit of all changes."""
        exporters: Sequence[ExporterRow] = ()
        if not builder.segment.size or time.monotonic() >= self._tell_exporters:
            self._tell_exporters = time.monotonic() + EXPORTERS_INTERVAL
            exporters = self.exporters()
        rows = {ledger: row_of(ledger) for ledger in self._changed}
        builder.commit(rows, self._released, exporters, self._repeated)
        self._changed, self._released, self._repeated = {}, [], []

    def tell_exporters(self) -> None:
        """Include the sums of the exporters in the next commit, however recent the last ones are."""
        self._tell_exporters = 0.0

    def on_disk(self, builder: CommitBuilder) -> None:
        """Record that the changes in a builder are on disk."""
        self.written.update(builder.rows)
        for segment, _ in builder.released:
            segment.kept -= 1

    def take_back(self, builder: CommitBuilder) -> None:
        """Take the changes of a builder back: it cannot be written."""
        self._changed |= dict.fromkeys(builder.rows)
        self._released[:0] = builder.released
        self._repeated[:0] = builder.repeated
        self._branches += builder.branches


def row_of(ledger: Ledger) -> Account:
    """Return the row of a ledger in a commit."""
    return (*ledger.key, ledger.accepted, list(ledger.settled), dict(ledger.dropped_reasons))
