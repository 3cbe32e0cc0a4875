"""Verify a journal on disk: checksums, order of entries, sums, mark and waiting entries. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.at_rest.slots import key_ids
from otelwp_agent.journal import opening
from otelwp_agent.journal.audit import report_of
from otelwp_agent.journal.records import Commit, JournalDamage, JournalSnapshot, RecordKind
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.journal.segment import RELEASED
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.records import JournalRecord
    from otelwp_agent.journal.recovery import Recovered
    from otelwp_agent.journal.segment import Segment


@dataclass(slots=True)
class WaitingEntries:
    """Entries that one pipeline has not settled."""

    entries: int = 0
    items: int = 0
    done: dict[str, int] = field(default_factory=dict)
    """Number of these entries that each branch of the pipeline has settled already."""


@dataclass(slots=True)
class Verification:
    """The result of a verification."""

    directory: str
    in_use: bool
    """Whether an agent has the journal open: its last write may look unfinished."""
    segments: int = 0
    bytes: int = 0
    entries: int = 0
    """Entries in the segments, settled or not."""
    last: int = 0
    """The number of the last entry."""
    marked: int | None = None
    """The number of the last acknowledged entry according to the mark."""
    torn_bytes: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    """Number of segments that each key opens, by its id; "" for segments that are not encrypted."""
    waiting: dict[str, WaitingEntries] = field(default_factory=dict)
    """By pipeline."""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "sound": not self.problems}


def verify_directory(directory: Path, keys: StorageKeys | None = None) -> Verification:
    """Read a journal and check everything in it; raises `OSError` and the errors of `read_directory`."""
    try:
        lock = opening.lock(directory)
    except BlockingIOError:
        return _verify(directory, keys, in_use=True)
    try:
        return _verify(directory, keys, in_use=False)
    finally:
        files.close(lock)


def _verify(directory: Path, keys: StorageKeys | None, *, in_use: bool) -> Verification:
    found = Verification(str(directory), in_use)
    recovered = read_directory(directory, write=False, keys=keys)
    try:
        found.segments = len(recovered.segments)
        found.bytes = sum(segment.size for segment in recovered.segments)
        found.entries = sum(len(segment.states) for segment in recovered.segments)
        found.last = max([0, *(segment.end - 1 for segment in recovered.segments)])
        found.marked = recovered.mark.next - 1 if recovered.mark is not None else None
        found.torn_bytes = recovered.torn
        found.problems = report_of(recovered).all_problems()
        if recovered.mark_damaged:
            found.problems.append("mark: damaged; whether the end of the journal is missing is unknown")
        before: Segment | None = None
        for segment in recovered.segments:
            for key in key_ids(segment.data_key) if segment.data_key else [""]:
                found.keys[key] = found.keys.get(key, 0) + 1
            found.problems += _order_problems(segment, before)
            before = segment
        _count_waiting(recovered, found)
    finally:
        recovered.close()
    return found


def _order_problems(segment: Segment, before: Segment | None) -> Iterator[str]:
    """Yield messages about entries out of order in one segment; damage is reported elsewhere."""
    order = _Order()
    for number, found in enumerate(segment.scan()):
        if isinstance(found, JournalDamage):
            continue
        if (found.kind is RecordKind.SNAPSHOT) != (number == 0):
            yield f"{segment.path.name}: offset {found.offset}: a segment begins with its only snapshot"
        for problem in order.problems(found):
            yield f"{segment.path.name}: offset {found.offset}: {problem}"
    if before is not None and segment.first < before.end:
        yield f"{segment.path.name} begins with entry {segment.first}, {before.path.name} ends with {before.end - 1}"


class _Order:
    """Checks the order of the records in one segment."""

    def __init__(self) -> None:
        self._following: int | None = None
        self._contexts: set[int] = set()

    def problems(self, record: JournalRecord) -> Iterator[str]:
        following = self._following
        if record.kind is RecordKind.SNAPSHOT:
            self._following = JournalSnapshot.decode(record.payload).first
        elif record.kind is RecordKind.CONTEXT:
            self._contexts.add(record.context)
        elif record.kind is RecordKind.COMMIT:
            entries = Commit.decode(record.payload).entries
            if following is not None and entries.stop > following:
                yield f"a commit names entry {entries.stop - 1}, which is missing"
        elif record.kind is not RecordKind.MESSAGE:
            if following is not None and record.seq != following:
                yield f"entry {record.seq} follows where {following} should"
            if record.context not in self._contexts:
                yield f"entry {record.seq} has no context before it"
            self._following = record.seq + 1


def _count_waiting(recovered: Recovered, found: Verification) -> None:
    for segment in recovered.segments:
        for index, state in enumerate(segment.states):
            context = segment.contexts.get(segment.context_numbers[index])
            if state == RELEASED or context is None:
                continue
            done = recovered.branches.get(segment.first + index, set())
            for place, pipeline in enumerate(context.pipelines):
                if (place, "") in done:
                    continue
                waiting = found.waiting.setdefault(pipeline, WaitingEntries())
                waiting.entries += 1
                waiting.items += segment.items[index]
                for at, branch in done:
                    if at == place:
                        waiting.done[branch] = waiting.done.get(branch, 0) + 1
