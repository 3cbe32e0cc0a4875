"""What the journal knows and has not written yet, and the accounts as they stand on disk."""

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
"""Seconds after which a write has the sums of the exporters again."""


class PendingChanges:
    """Accounts that changed, entries that are released, branches that are done: each commit takes what has come."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.written: dict[Ledger, Account] = {}
        """The accounts as the last commit has them."""
        self.exporters: Callable[[], Sequence[ExporterRow]] = list
        """Returns what is to be remembered of exporters."""
        self._changed: dict[Ledger, None] = {}
        self._released: list[tuple[Segment, int]] = []
        self._progressed: list[JournalClaim] = []
        self._branches: list[tuple[int, int, str]] = []
        """What is done of entries that wait again."""
        self._repeated: list[int] = []
        """Numbers of entries whose release was on disk and is there no more."""
        self._tell_exporters = 0.0

    def __bool__(self) -> bool:
        """Tell whether there is anything to be written."""
        return bool(self._changed or self._released or self._progressed or self._branches or self._repeated)

    def changed(self, ledger: Ledger) -> None:
        """Note that an account has changed."""
        self._changed[ledger] = None

    def progressed(self, claim: JournalClaim) -> None:
        """Note that a branch has settled something while others have not."""
        self._progressed.append(claim)

    def released(self, segment: Segment, index: int) -> None:
        """Note that an entry is settled."""
        self._released.append((segment, index))

    def waits(self, entry: JournaledRequest) -> None:
        """Note what is done of an entry that waits for the rest."""
        self._branches += [(entry.seq, place, name) for place, name in entry.done]

    def repeat(self, released: Iterable[int], branches: Iterable[tuple[int, int, str]]) -> None:
        """Write again which entries are released and which branches are done: the commits that said so are lost."""
        self._repeated += released
        self._branches += branches

    def moved(self, builder: CommitBuilder, seq: int, done: Sequence[tuple[int, str]]) -> None:
        """Note what has been done of an entry while a draft moved it to number `seq`."""
        rows = [(seq, place, name) for place, name in done]
        self._branches += [row for row in rows if row not in builder.branches]

    def take_branches(self) -> list[tuple[int, int, str]]:
        """Return what is done of entries that are not. Take it before anything moves: that takes along what is done."""
        rows = dict.fromkeys(self._branches)
        for claim in self._progressed:
            entry = claim.entry
            if entry.open or entry.parked:
                entry.done = entry.done.union([(claim.pipeline, name) for name in claim.branches_done()])
                rows.update(dict.fromkeys((entry.seq, place, name) for place, name in entry.done))
        self._progressed, self._branches = [], []
        return list(rows)

    def close(self, builder: CommitBuilder) -> None:
        """End a draft with the commit that says everything known now."""
        exporters: Sequence[ExporterRow] = ()
        if not builder.segment.size or time.monotonic() >= self._tell_exporters:
            self._tell_exporters = time.monotonic() + EXPORTERS_INTERVAL
            exporters = self.exporters()
        rows = {ledger: row_of(ledger) for ledger in self._changed}
        builder.commit(rows, self._released, exporters, self._repeated)
        self._changed, self._released, self._repeated = {}, [], []

    def tell_exporters(self) -> None:
        """Have the next commit say what exporters have done, however recently that was said."""
        self._tell_exporters = 0.0

    def on_disk(self, builder: CommitBuilder) -> None:
        """Remember what a draft says, now that it is on disk."""
        self.written.update(builder.rows)
        for segment, _ in builder.released:
            segment.kept -= 1

    def take_back(self, builder: CommitBuilder) -> None:
        """Know again what a draft would have said: it cannot be written."""
        self._changed |= dict.fromkeys(builder.rows)
        self._released[:0] = builder.released
        self._repeated[:0] = builder.repeated
        self._branches += builder.branches


def row_of(ledger: Ledger) -> Account:
    """Return an account as it is written."""
    return (*ledger.key, ledger.accepted, list(ledger.settled), dict(ledger.dropped_reasons))
