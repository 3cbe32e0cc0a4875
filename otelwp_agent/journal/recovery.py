"""Read a journal's directory: the entries that are not settled, the ledgers, and the damage.

The same reading serves the start of the agent and `otelwp-agent audit`; it changes nothing on disk.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from operator import gt
from typing import TYPE_CHECKING

import orjson

from otelwp_agent.journal.mark import read_mark
from otelwp_agent.journal.records import (
    Account,
    Commit,
    JournalDamage,
    JournalRecord,
    JournalSnapshot,
    RecordKind,
    RequestContext,
)
from otelwp_agent.journal.segment import RELEASED, WAITING, Segment
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.mark import Mark
    from otelwp_agent.journal.records import ExporterRow
    from otelwp_agent.sealing.message_memory import MessageRow

Key = tuple[str, str, str]
"""Pipeline, receiver, tenant."""


@dataclass(slots=True)
class Recovered:
    """The contents of a journal's directory."""

    segments: list[Segment] = field(default_factory=list)
    """Open, the oldest first, with the state of every entry."""
    accounts: dict[Key, Account] = field(default_factory=dict)
    """The ledgers as of the last commit, with complete entries that were written after it."""
    live: Counter[Key] = field(default_factory=Counter)
    """Items that are not settled, counted from the entries."""
    exporters: Sequence[ExporterRow] = ()
    """The last sums of the exporters."""
    branches: dict[int, set[tuple[int, str]]] = field(default_factory=dict)
    """Settled branches of entries that are not settled."""
    messages: list[MessageRow] = field(default_factory=list)
    """The messages that were accepted and remembered, since the start of the newest segment."""
    damage: list[tuple[Path, JournalDamage]] = field(default_factory=list)
    torn: int = 0
    """Bytes of an unfinished last write, which was not acknowledged."""
    mark: Mark | None = None
    """The high-water mark, if there is one."""
    mark_damaged: bool = False
    problems: list[str] = field(default_factory=list)
    """Inconsistencies, as messages."""

    @property
    def entries(self) -> int:
        """Entries that are not settled."""
        return sum(segment.live for segment in self.segments)

    @property
    def missing(self) -> int:
        """Largest possible number of acknowledged entries that were not settled and are missing at the end."""
        if self.mark is None:
            return 0
        end = max([1, *(segment.end for segment in self.segments)])
        return max(0, min(self.mark.next - end, self.mark.live))

    def close(self) -> None:
        """Close all segments."""
        for segment in self.segments:
            segment.close()


def read_directory(directory: Path, *, write: bool = True, keys: StorageKeys | None = None) -> Recovered:
    """Read every segment in `directory`, encrypted ones with `keys`.

    Raises `OSError`, `FileKeyError` if a segment is encrypted for none of `keys`, `SealedDataError` if a data key was
    changed.
    """
    recovered = Recovered()
    # Read it before the segments: a running agent only appends to them.
    recovered.mark, recovered.mark_damaged = read_mark(directory)
    try:
        _read_segments(directory, recovered, write=write, keys=keys)
    except BaseException:
        recovered.close()
        raise
    return recovered


def _read_segments(directory: Path, recovered: Recovered, *, write: bool, keys: StorageKeys | None) -> None:
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 - raises if it is not permitted, unlike `glob`
        segment = Segment.open(directory / name, write=write, keys=keys)
        if segment is not None:
            recovered.segments.append(segment)
    segments = recovered.segments
    readings = [_SegmentReading(*each, recovered) for each in zip(segments, [None, *segments], strict=False)]
    released = [seq for reading in readings for seq in reading.read()]
    _release(readings, released, recovered)
    for reading in readings:
        reading.count_live()


class _SegmentReading:
    """Reads one segment."""

    def __init__(self, segment: Segment, before: Segment | None, recovered: Recovered) -> None:
        self.segment = segment
        self._before = before
        self._recovered = recovered
        self._message: MessageRow | None = None
        """The message of the next entry."""
        self._released = array("Q")
        self._uncovered: list[tuple[int, Key, int]] = []
        """Entries, once for each of their ledgers, without sums after them yet: number, ledger, items."""

    def read(self) -> array[int]:
        """Read the file into the segment and the ledgers; return the entries that it releases."""
        segment, recovered = self.segment, self._recovered
        last = segment is recovered.segments[-1]
        known = False
        if self._before is not None:
            segment.first = self._before.end  # if neither its snapshot nor an entry states it
        for found in segment.scan():
            if isinstance(found, JournalDamage):
                self._message = None  # perhaps its entry is damaged
                if last and found.offset + found.length == segment.size:
                    recovered.torn += found.length
                else:
                    recovered.damage.append((segment.path, found))
            elif found.kind is RecordKind.SNAPSHOT:
                known = True
                self._begin(JournalSnapshot.decode(found.payload))
            elif found.kind is RecordKind.CONTEXT:
                segment.contexts[found.context] = RequestContext.decode(found.payload)
            elif found.kind is RecordKind.COMMIT:
                commit = Commit.decode(found.payload)
                if known:
                    self._skip_to(commit.entries.stop, found.offset)
                self._commit(commit)
            else:
                if not known and found.kind is not RecordKind.MESSAGE:
                    segment.first, known = found.seq, True
                self._add(found)
        self._accept_uncovered()
        return self._released

    def count_live(self) -> None:
        """Add up the items that are not settled, by ledger."""
        segment, recovered = self.segment, self._recovered
        segment.kept = segment.live
        index = segment.states.find(WAITING)
        while index >= 0:
            context = segment.contexts.get(segment.context_numbers[index])
            done = recovered.branches.get(segment.first + index, ())
            for place, pipeline in enumerate(context.pipelines if context is not None else ()):
                if (place, "") not in done and context is not None:
                    key = (pipeline, context.origin.receiver, context.origin.tenant)
                    recovered.live[key] += segment.items[index]
            index = segment.states.find(WAITING, index + 1)

    def _begin(self, snapshot: JournalSnapshot) -> None:
        segment, recovered = self.segment, self._recovered
        segment.first = snapshot.first
        recovered.messages = list(snapshot.messages)
        if segment is not recovered.segments[0] and not snapshot.adjusted:
            recovered.problems += _differences(segment, snapshot, recovered)
        recovered.accounts.update({row[:3]: row for row in snapshot.accounts})

    def _commit(self, commit: Commit) -> None:
        recovered = self._recovered
        recovered.problems += self._growth(commit)
        known = {row[:3] for row in commit.accounts}
        # Sums are as of their commit: they include everything before, even what a damaged commit contained.
        self._uncovered = [each for each in self._uncovered if each[0] not in commit.entries and each[1] not in known]
        self._released.extend(commit.released)
        recovered.accounts.update({row[:3]: row for row in commit.accounts})
        recovered.exporters = commit.exporters or recovered.exporters
        for seq, pipeline, name in commit.branches:
            recovered.branches.setdefault(seq, set()).add((pipeline, name))

    def _growth(self, commit: Commit) -> Iterator[str]:
        """Compare what a commit adds to the ledgers with the entries before it; damage is reported elsewhere."""
        segment, recovered = self.segment, self._recovered
        if recovered.damage:
            return
        entries: Counter[Key] = Counter()
        for seq, key, items in self._uncovered:
            if seq in commit.entries:
                entries[key] += items
        for row in commit.accounts:
            before = recovered.accounts.get(row[:3], (*row[:3], 0, [0] * len(Outcome), {}))
            if row[3] - before[3] != entries[row[:3]] or any(map(gt, before[4], row[4])):
                name = " / ".join(part or "-" for part in row[:3])
                yield (
                    f"{segment.path.name}: a commit changes the sums for {name} from {before[3]} accepted and "
                    f"{before[4]} settled to {row[3]} and {row[4]}, with {entries[row[:3]]} items before it"
                )

    def _skip_to(self, following: int, offset: int) -> None:
        """Add the entries before number `following` that are damaged, as released, so that no number is used twice.

        Otherwise a release of the damaged entry would release a later request with the same number.
        """
        segment = self.segment
        gap = following - segment.end
        segment.states.extend(bytes([RELEASED]) * gap)
        segment.offsets.extend([offset] * gap)
        segment.items.extend([0] * gap)
        segment.context_numbers.extend([0] * gap)
        segment.sizes.extend([0] * gap)

    def _add(self, record: JournalRecord) -> None:
        """Add an entry, or the message of the next one; numbers missing before an entry were damaged."""
        segment = self.segment
        if record.kind is RecordKind.MESSAGE:
            self._message = orjson.loads(record.payload)
            return
        if record.seq < segment.end:
            return
        self._skip_to(record.seq, record.offset)
        size = record.size
        segment.states.append(WAITING)
        segment.offsets.append(record.offset)
        segment.items.append(record.items)
        segment.context_numbers.append(record.context)
        segment.sizes.append(size)
        segment.live += 1
        segment.live_bytes += size
        if self._message is not None:
            self._recovered.messages.append(self._message)
            self._message = None
        if record.kind is RecordKind.MOVED:
            self._released.append(record.moved_from())
        else:
            context = segment.contexts.get(record.context)
            for pipeline in context.pipelines if context is not None else ():
                assert context is not None  # noqa: S101 - or there would be no pipelines
                key = (pipeline, context.origin.receiver, context.origin.tenant)
                self._uncovered.append((record.seq, key, record.items))

    def _accept_uncovered(self) -> None:
        """Add complete entries without a complete commit to the ledgers: they may have been acknowledged."""
        accounts = self._recovered.accounts
        for _, key, items in self._uncovered:
            row = accounts.get(key) or (*key, 0, [0] * len(Outcome), {})
            accounts[key] = (*key, row[3] + items, row[4], row[5])


def _differences(segment: Segment, snapshot: JournalSnapshot, recovered: Recovered) -> Iterator[str]:
    """Compare the snapshot of a segment with the end of the segment before."""
    for row in snapshot.accounts:
        before = recovered.accounts.get(row[:3])
        if before is not None and (before[3], list(before[4])) != (row[3], list(row[4])):
            name = " / ".join(part or "-" for part in row[:3])
            yield (
                f"{segment.path.name} begins with other sums for {name} than the segment before it ends with: "
                f"{row[3]} accepted and {row[4]} settled, not {before[3]} and {before[4]}"
            )


def _release(readings: list[_SegmentReading], released: list[int], recovered: Recovered) -> None:
    starts = [reading.segment.first for reading in readings]
    for seq in released:
        recovered.branches.pop(seq, None)
        place = bisect_right(starts, seq) - 1
        if place < 0:
            continue
        segment = readings[place].segment
        index = seq - segment.first
        if index < len(segment.states) and segment.states[index] != RELEASED:
            segment.states[index] = RELEASED
            segment.live -= 1
            segment.live_bytes -= segment.sizes[index]
