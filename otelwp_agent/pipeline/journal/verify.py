"""Verify a journal on disk: checksums, order of entries, sums, the mark, and what waits. It changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.pipeline.journal import opening
from otelwp_agent.pipeline.journal.audit import report_of
from otelwp_agent.pipeline.journal.records import Commit, Damage, Kind, Snapshot
from otelwp_agent.pipeline.journal.recovery import read_directory
from otelwp_agent.pipeline.journal.segment import RELEASED
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otelwp_agent.pipeline.journal.recovery import Recovered
    from otelwp_agent.pipeline.journal.segment import Segment


@dataclass(slots=True)
class Waiting:
    """What one pipeline has not settled."""

    entries: int = 0
    items: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """Of these entries, how many each branch of the pipeline has settled already."""


@dataclass(slots=True)
class Verification:
    """What was found."""

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
    waiting: dict[str, Waiting] = field(default_factory=dict)
    """By pipeline."""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "sound": not self.problems}


def verify_directory(directory: Path) -> Verification:
    """Read a journal and check everything in it; raises `OSError`."""
    try:
        lock = opening.lock(directory)
    except BlockingIOError:
        return _verify(directory, in_use=True)
    try:
        return _verify(directory, in_use=False)
    finally:
        files.close(lock)


def _verify(directory: Path, *, in_use: bool) -> Verification:
    found = Verification(str(directory), in_use)
    recovered = read_directory(directory, write=False)
    try:
        found.segments = len(recovered.segments)
        found.bytes = sum(segment.size for segment in recovered.segments)
        found.entries = sum(len(segment.states) for segment in recovered.segments)
        found.last = max([0, *(segment.end - 1 for segment in recovered.segments)])
        found.marked = recovered.mark.next - 1 if recovered.mark is not None else None
        found.torn_bytes = recovered.torn
        found.problems = report_of(recovered, directory).all_problems()
        if recovered.mark_damaged:
            found.problems.append("mark: damaged; whether the end of the journal is missing is unknown")
        before: Segment | None = None
        for segment in recovered.segments:
            found.problems += _order_problems(segment, before)
            before = segment
        _count_waiting(recovered, found)
    finally:
        recovered.close()
    return found


def _order_problems(segment: Segment, before: Segment | None) -> Iterator[str]:
    """Yield what is out of order in one segment; damage is reported elsewhere."""
    name = segment.path.name
    following: int | None = None
    contexts: set[int] = set()
    for number, found in enumerate(segment.scan()):
        if isinstance(found, Damage):
            continue
        if (found.kind is Kind.SNAPSHOT) != (number == 0):
            yield f"{name}: offset {found.offset}: a segment begins with its only snapshot"
        if found.kind is Kind.SNAPSHOT:
            following = Snapshot.decode(found.payload).first
            if before is not None and following < before.end:
                yield f"{name}: its first entry is number {following}, but {before.path.name} ends with {before.end - 1}"
        elif found.kind is Kind.CONTEXT:
            contexts.add(found.context)
        elif found.kind is Kind.COMMIT:
            entries = Commit.decode(found.payload).entries
            if following is not None and entries.stop > following:
                yield f"{name}: offset {found.offset}: a commit names entry {entries.stop - 1}, which is missing"
        else:
            if following is not None and found.seq != following:
                yield f"{name}: offset {found.offset}: entry {found.seq} follows where {following} should"
            if found.context not in contexts:
                yield f"{name}: offset {found.offset}: entry {found.seq} has no context before it"
            following = found.seq + 1


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
                waiting = found.waiting.setdefault(pipeline, Waiting())
                waiting.entries += 1
                waiting.items += segment.items[index]
                waiting.done.update(branch for at, branch in done if at == place)
