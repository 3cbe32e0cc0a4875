"""Manage the files of an open journal: write one, copy entries out of old ones, replace those that disappear.

An administrator or a program may remove or replace a segment or the whole directory while the agent runs. A commit is
not acknowledged before its segment was found at its path, and every other segment is checked each second. The open
files can still be read, so their unsettled entries are copied into a new segment, in a directory that is created again
if it is missing.
"""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.journal import opening, records
from otelwp_agent.journal.mark import MarkFile
from otelwp_agent.journal.segment import Segment, is_segment
from otelwp_agent.journal.writer import Writer
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    import structlog

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.commit_builder import CommitBuilder
    from otelwp_agent.journal.entry_store import EntryStore
    from otelwp_agent.journal.metrics import JournalMetrics
    from otelwp_agent.journal.pending_changes import PendingChanges
    from otelwp_agent.journal.recovery import Recovered
    from otelwp_agent.journal.reserve import Reserve

SEGMENT_BYTES = 16 * 2**20
"""Size of the largest segment; a journal smaller than sixteen of these uses smaller segments."""
COMPACT_SHARE = 0.25
"""When the journal is half full, the oldest segment is copied into the newest if less of it than this is unsettled."""
REPORTED_SECONDS = 60.0
"""Seconds for which health reports that a file had disappeared."""
SETTLED_SECONDS = 1.0
"""A directory that was last changed longer ago than this, and not since it was checked, is unchanged."""
_ADVICE = "find out who removes files there: only the agent may change this directory while it runs"


class SegmentStore:
    """The directory of a journal, from `open` to `close`. Use it from the event loop's thread alone."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one journal
        self,
        directory: Path,
        max_size: int,
        entry_store: EntryStore,
        changes: PendingChanges,
        metrics: JournalMetrics,
        reserve: Reserve,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Prepare; `open` reads the directory."""
        self.directory = directory
        self.mark = MarkFile(directory)
        self.lock = -1
        """Descriptor of the directory, open and locked."""
        self.next = 1
        """The number of the next entry."""
        self.adjusted = False
        """Whether the accounts in the next segment may differ from those at the end of the one before it."""
        self.context_numbers: dict[tuple[object, ...], int] = {}
        """Contexts of the newest segment."""
        self.current: Segment | None = None
        """The newest segment, if this run of the agent created it."""
        self.keys: StorageKeys | None = None
        """Keys of encrypted segments; new ones are encrypted if it is set. Set it before `open`."""
        self._segment_bytes = max(2**18, min(SEGMENT_BYTES, max_size // 16))
        self._max_size = max_size
        self._number = 0
        self._entry_store = entry_store
        self._changes = changes
        self._metrics = metrics
        self._reserve = reserve
        self._log = log
        self._deleter = Writer("journal, deleting")
        self._directory_lost = False
        self._displaced: list[Segment] = []
        """Segments that disappeared, with entries that must be copied."""
        self._settled: list[Segment] = []
        """Segments that are not needed any more, the oldest first."""
        self._deleting = False
        self._undeleted = False
        """Whether the oldest of them could not be deleted, which has been reported."""
        self._reported_until = 0.0
        self._seen_change = -1

    @property
    def problem(self) -> str:
        """Message about files that disappeared a short time ago or are not replaced yet; "" if none."""
        if self._directory_lost or self._displaced or time.monotonic() < self._reported_until:
            return f"segments or the directory were removed or replaced: {_ADVICE}"
        return ""

    @property
    def must_copy(self) -> bool:
        """Whether entries of segments that disappeared are not in another one yet."""
        return bool(self._displaced)

    def open(self) -> Recovered:
        """Lock the directory and read it; raises `StartError`."""
        self.lock, recovered = opening.take(self.directory, self.keys)
        self._entry_store.restore(recovered)
        segments = recovered.segments
        self._number = max((segment.number for segment in segments), default=0)
        self.next = max([1, *(segment.end for segment in segments)])
        return recovered

    def close(self) -> None:
        """Close every file and unlock the directory."""
        settled, self._settled = self._settled, []
        self._deleter.close()
        for segment in settled:
            segment.close()
        for segment in self._entry_store.segments:
            segment.close()
        self._entry_store.segments = []
        self.current = None
        self.mark.close()
        lock, self.lock = self.lock, -1
        if lock >= 0:
            files.close(lock)

    def use_keys(self, keys: StorageKeys | None) -> None:
        """Encrypt new segments with `keys`, beginning with the next commit."""
        self.keys = keys
        self.current = None

    def newest(self) -> Segment:
        """Return the segment to write to: a new one when the one before is full. Raises `OSError`."""
        segment = self.current
        if (
            segment is not None
            and segment.size < self._segment_bytes
            and segment.is_writable
            and len(self.context_numbers) < records.MAX_CONTEXTS // 4
        ):
            return segment
        if self._directory_lost:
            self._open_directory_again()
        self._number += 1
        segment = Segment.create(self.directory, self._number, self.next, self.keys)
        try:
            os.fsync(self.lock)  # or a power failure could remove the new file
        except OSError:
            self._discard(segment)
            raise
        self.current = segment
        self._entry_store.segments.append(segment)
        return segment

    def source(self, newest: Segment) -> Segment | None:
        """Return the segment whose entries are copied with the next commit, if there is one.

        Segments that disappeared come first; then the oldest, if few of its entries are unsettled and the journal is
        half full.
        """
        while self._displaced and not self._displaced[0].live:
            self._displaced.pop(0)
        if self._displaced:
            return self._displaced[0]
        oldest = self._entry_store.segments[0]
        few = 0 < oldest.live_bytes <= COMPACT_SHARE * oldest.size
        return oldest if few and oldest is not newest and 2 * self._entry_store.stored >= self._max_size else None

    def copied(self, source: Segment, entries: int) -> None:
        """Record that a commit copies this number of entries of `source`: stop trying if none can be read."""
        if source in self._displaced and not entries:
            self._displaced.remove(source)
            self._log.error(
                "journal entries cannot be copied; they exist in memory only",
                file=str(source.path),
                entries=source.live,
                advice="let the agent deliver them before it stops",
            )

    def undo(self, builder: CommitBuilder) -> None:
        """Stop writing to the segment of a commit that failed: what its file holds now is unknown."""
        self.next = builder.next  # if the file could not be truncated it has these numbers: do not use them twice
        self.current = None
        if not builder.segment.size and builder.segment in self._entry_store.segments:
            self._entry_store.segments.remove(builder.segment)
            self._discard(builder.segment)

    def delete_settled(self) -> None:
        """Delete the oldest segments that are not needed, in a thread, because large files take long."""
        self._settled += self._entry_store.prune()
        if self._settled and not self._deleting:
            self._deleting = True
            segment = self._settled[0]
            self._deleter.submit(segment.delete, partial(self._deleted, segment))

    def _deleted(self, segment: Segment, error: BaseException | None) -> None:
        """Delete the next segment; one that could not be deleted is tried again after the next commit.

        The order matters: releases of its entries are in the segments behind it.
        """
        self._deleting = False
        if error is not None:
            if not self._undeleted:
                self._log.warning("journal segment not deleted", file=str(segment.path), error=str(error))
            self._undeleted = True
        elif self._settled:  # otherwise it was closed meanwhile: the rest is deleted after the next start
            self._settled.pop(0)
            self._undeleted = False
            self.delete_settled()

    def find_displaced(self) -> bool:
        """Check the directory and all segments; return whether anything has disappeared since the last check.

        Then the next commit goes to a new segment, and commits copy entries as long as `must_copy`.
        """
        try:
            replaced, missing = self._look()
        except OSError as error:
            self._log.error("journal directory cannot be checked", directory=str(self.directory), error=error.strerror)
            return False
        if not (replaced or missing):
            return False
        self._directory_lost = self._directory_lost or replaced
        self._displaced += missing
        for segment in missing:
            segment.displaced = True
        self.current = None
        self.adjusted = True
        self._repeat_commits()
        self._reported_until = time.monotonic() + REPORTED_SECONDS
        self._metrics.displaced.add(len(missing))
        self._log.error(
            "journal directory was removed or replaced; entries are copied to a new one"
            if replaced
            else "journal segments were removed or replaced; entries are copied to a new one",
            directory=str(self.directory),
            segments=len(missing),
            entries=sum([segment.live for segment in missing]),
            advice=_ADVICE,
        )
        return True

    def _look(self) -> tuple[bool, list[Segment]]:
        """Return whether the directory is another one, and the segments that are not at their paths."""
        try:
            found = os.stat(self.directory)  # noqa: PTH116 - beside fstat
        except (FileNotFoundError, NotADirectoryError):
            return not self._directory_lost, self._not_in_place()
        replaced = not os.path.samestat(found, os.fstat(self.lock))
        changed, self._seen_change = found.st_mtime_ns != self._seen_change, found.st_mtime_ns
        if replaced or changed or time.time() - found.st_mtime < SETTLED_SECONDS:
            return replaced and not self._directory_lost, self._not_in_place()
        return False, []

    def _not_in_place(self) -> list[Segment]:
        return [each for each in self._entry_store.segments if not (each.displaced or each.is_in_place)]

    def _open_directory_again(self) -> None:
        """Create the directory if it is missing, lock it and use it; raises `OSError`."""
        files.make_directory(self.directory)
        lock = opening.lock(self.directory)
        try:
            self._check_foreign()
        except BaseException:
            files.close(lock)
            raise
        files.close(self.lock)
        self.lock = lock
        self._directory_lost = False
        self.mark.close()
        self._reserve.held = False
        self._reserve.hold()

    def _check_foreign(self) -> None:
        """Raise `OSError` if the directory at our path holds segments of another journal."""
        ours = {segment.path.name for segment in self._entry_store.segments}
        names = os.listdir(self.directory)  # noqa: PTH208 - raises, unlike `glob`
        foreign = [name for name in names if is_segment(name) and name not in ours]
        if foreign:
            raise FileExistsError(
                errno.EEXIST,
                f"{self.directory} now holds another journal ({foreign[0]}): move it away, or restart the agent "
                "to read it",
            )

    def _repeat_commits(self) -> None:
        """Let the next commit repeat what the lost commits stated about entries of other segments."""
        for segment in self._entry_store.segments:
            if not segment.displaced:
                self._changes.repeat(self._entry_store.released(segment), self._entry_store.partly_done(segment))

    def _discard(self, segment: Segment) -> None:
        """Remove a segment to which nothing was written."""
        try:
            segment.delete()
        except OSError as error:
            self._log.warning("journal segment not deleted", file=str(segment.path), error=str(error))
