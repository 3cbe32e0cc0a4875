"""The journal: requests are on disk before they are answered, and until they are settled.

Group commit: what arrives while one write is on its way to the disk is written together, with one fsync, by the next. A
thread does the writing, so that the loop goes on. A request is fed to its pipelines once it is on disk.

Invariants:

* What `append` has said yes to is on disk (with `sync: none`, in the kernel) and comes back after a crash until every
  pipeline has settled all of it.
* The accounts on disk are those in memory as of the last commit: each commit holds the sums that it has changed, the
  entries it releases, and the branches that are done, in one record.
* A segment is deleted only when all before it are, and after its last release is on disk: a release is never older than
  its entry.
* A write that fails has changed nothing: who waits for it is refused, and a later one tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from bisect import bisect_left
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.component import ComponentHealth, Kind
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.journal import opening, records
from otelwp_agent.pipeline.journal.account import JournalAccount
from otelwp_agent.pipeline.journal.books import Books, row_of
from otelwp_agent.pipeline.journal.draft import Draft
from otelwp_agent.pipeline.journal.records import HEADER_BYTES, Snapshot
from otelwp_agent.pipeline.journal.reserve import Reserve
from otelwp_agent.pipeline.journal.segment import Segment
from otelwp_agent.pipeline.journal.shelf import Shelf
from otelwp_agent.pipeline.journal.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import structlog

    from otelwp_agent.config.service import JournalConfig
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.pipeline.journal.claims import Done, Entry, JournalClaim
    from otelwp_agent.pipeline.journal.draft import Request
    from otelwp_agent.pipeline.journal.records import Context, ExporterRow, Record
    from otelwp_agent.pipeline.journal.recovery import Recovered
    from otelwp_agent.pipeline.ledgers import Ledgers
    from otelwp_agent.telemetry.metrics import Registry

SEGMENT_BYTES = 16 * 2**20
"""Largest segment; a journal of less room than sixteen of them has smaller ones."""
MAX_UNWRITTEN = 16 * 2**20
"""Bytes of bodies that may wait for a disk that does not keep up, before senders are refused."""
MAX_GROUP = 4 * 2**20
"""Bytes that one write holds, if there is more than one request in it."""
MAX_GROUP_REQUESTS = 4096
GROUP_INTERVAL = 0.005
"""Seconds between two writes under load: what comes meanwhile shares the second one, for each costs something, whatever
is in it. A request that comes alone does not wait."""
EARLY_BYTES = 2**21
"""Bytes that are worth a write at once."""
FLUSH_INTERVAL = 0.1
"""Seconds after which a release is written when no request comes with which it could be."""
RETRY_INTERVAL = 1.0
"""Seconds after a write that failed in which nothing is taken."""
COMPACT_SHARE = 0.25
"""The oldest segment, if less of it is alive, moves into the newest when the journal is half full."""


class Journal:
    """A directory of segments. Use it from the event loop's thread alone; one process has it at a time."""

    def __init__(
        self,
        settings: JournalConfig,
        ledgers: Ledgers,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Keep the accounts that are in `ledgers`; nothing is opened before `open`."""
        self.directory = Path(settings.directory)
        self.max_size = settings.max_size
        self.on_closed: Callable[[], None] = lambda: None
        """Called when an entry has been closed: there may be room for others."""
        self._sync = settings.sync
        self._segment_bytes = max(2**18, min(SEGMENT_BYTES, settings.max_size // 16))
        self._ledgers = ledgers
        self._log = log
        self._lock = -1
        self._shelf = Shelf(self, log)
        self._current: Segment | None = None
        """The newest, if this run of the agent made it."""
        self._number = 0
        """Of the newest segment."""
        self._next = 0
        """Of the next entry."""
        self._adjusted = False
        self._context_numbers: dict[tuple[object, ...], int] = {}
        """Contexts that the newest segment has."""

        self._requests: list[Request] = []
        self._unwritten = 0
        """Bytes of the bodies that wait or are being written."""
        self._room = 0
        """Bytes of bodies for which there is room, on disk and in memory."""
        self._writing = False
        self._draft: Draft | None = None
        """What is being written."""
        self._scheduled = False
        self._last_write = 0.0
        """When the last write began, on the loop's clock."""
        self._flush: asyncio.TimerHandle | None = None
        self._writer = Writer()
        self._deleter = Writer("journal, deleting")
        self._reserve = Reserve(self.directory)
        self._failure = ""
        self._disk_full = False
        self._refuse_until = 0.0
        self._idle: asyncio.Future[None] | None = None

        self._books = Books()
        self._account = JournalAccount(self._shelf, settings.max_size, registry)

    def remember_exporters(self, exporters: Callable[[], Sequence[ExporterRow]]) -> None:
        """Have commits say now and then, for who audits the journal, what `exporters` returns."""
        self._books.exporters = exporters

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        return self._shelf.stored

    @property
    def waiting(self) -> int:
        """Entries that wait to be fed."""
        return self._shelf.waiting

    @property
    def entries(self) -> int:
        """Requests that are not settled."""
        return self._shelf.entries

    @property
    def failure(self) -> str:
        """Why the last write failed; "" if it did not."""
        return self._failure

    def health(self) -> ComponentHealth:
        """Return its state: bad while it cannot be written or is full."""
        message = ""
        if self._failure:
            message = f"cannot be written: {self._failure}"
        elif self._shelf.unreadable:
            message = f"{len(self._shelf.unreadable)} entries cannot be read: check the disk"
        elif self.stored + self._unwritten >= self.max_size:
            message = "full: senders are refused until something has been delivered"
        details = {
            "directory": str(self.directory),
            "bytes": self.stored,
            "max_size": self.max_size,
            "entries": self.entries,
            "waiting_entries": self.waiting,
        }
        return ComponentHealth(Kind.EXTENSION, "journal", not message, message, details)

    # -- opening and closing

    def open(self) -> Recovered:
        """Take the directory, read what is in it, put the accounts right; raises `StartError`."""
        self._lock, recovered = opening.take(self.directory)
        lost, again = opening.put_right(recovered, self._ledgers)
        self._adjusted = bool(lost or again or recovered.damage)
        self._shelf.restore(recovered)
        segments = recovered.segments
        self._number = max((segment.number for segment in segments), default=0)
        self._next = max((segment.end for segment in segments), default=1)
        self._books.written = {ledger: row_of(ledger) for ledger in self._ledgers}
        self._account.damaged.add(sum(damage.length for _, damage in recovered.damage))
        for path, damage in recovered.damage:
            self._log.error("journal damaged; stepped over", file=str(path), offset=damage.offset, bytes=damage.length)
        if lost:
            self._log.error("items lost to damage in the journal", items=lost)
        if segments:
            self._log.info(
                "journal read",
                entries=self.entries,
                bytes=self.stored,
                torn_bytes=recovered.torn,
                settled_again=again,
            )
        self._delete(self._shelf.prune(self._current))
        self._reserve.hold()
        self._measure()
        return recovered

    async def close(self) -> None:
        """Write what is known and let the directory go. What is not settled stays for the next start."""
        if self._lock >= 0:
            await self._quiet()
            if self._current is not None or self._books:
                self._books.tell_exporters()
                self._commit()
            await self._quiet()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._writer.close()
        self._deleter.close()
        for segment in self._shelf.segments:
            segment.close()
        self._shelf.segments = []
        self._current = None
        self._room = 0
        self._unlock()

    async def _quiet(self) -> None:
        """Wait until no request is to be written."""
        while self._writing or self._requests:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- taking requests

    def admit(self) -> None:
        """Raise `Overloaded` if nothing can be taken now."""
        if self._unwritten < self._room and not self._failure:
            return
        if self._failure and (time.monotonic() < self._refuse_until or not self._has_room_again()):
            raise self._refusal()
        if self.stored + self._unwritten >= self.max_size:
            raise _full(self)
        if self._lock < 0:
            raise Overloaded("the agent is shutting down", reason="shutting_down")
        if self._unwritten >= MAX_UNWRITTEN:
            raise Overloaded("the disk under the journal does not keep up", retry_after=1.0, reason="journal_slow")

    def _has_room_again(self) -> bool:
        """Tell whether to try once more. On a full disk: once there is room for more than saying what is released."""
        if self._disk_full:
            self._reserve.hold()
            self._disk_full = not self._reserve.held
            self._refuse_until = time.monotonic() + RETRY_INTERVAL
        return not self._disk_full

    def append(self, request: Request) -> None:
        """Take a request, to be written; raise `Overloaded` if there is no room."""
        try:
            self.admit()
        except Overloaded as error:
            self._account.refused(1, error.reason)
            raise
        self._requests.append(request)
        self._unwritten += len(request.batch.body)
        if not self._writing and not self._scheduled:
            self._schedule()

    # -- what claims tell

    def settled(self, ledger: Ledger) -> None:
        """Hear that an account has changed."""
        self._books.changed(ledger)

    def progressed(self, claim: JournalClaim) -> None:
        """Hear that a branch has settled something while others have not."""
        self._books.progressed(claim)
        self._soon()

    def closed(self, entry: Entry) -> None:
        """Hear that no claim of an entry runs any more: it is released, or waits for what has no room."""
        if self._shelf.end(entry):
            self._books.released(entry.segment, entry.index)
        else:
            self._books.waits(entry)
        self._soon()
        if entry.on_closed is not None:
            entry.on_closed(entry)
        self.on_closed()

    # -- reading again

    def replays(self, ready: Callable[[Context, Done], bool]) -> Iterator[tuple[Entry, Record, Context] | None]:
        """Yield the entries that wait and for which there is room, the oldest first, each to be fed at once.

        `ready` tells of a context, and of what is done, whether there is; `None` stands for many for which there is
        none. What turns out to be damaged is dropped.
        """
        for replay in self._shelf.replays(ready):
            if replay is None:
                yield None
                continue
            entry, record, context = replay
            if record is None or context is None:
                self._lose(entry, context)
            else:
                self._account.replayed.add()
                yield entry, record, context

    def live(self) -> dict[tuple[str, str, str], int]:
        """Return the items that are not settled, by pipeline, receiver and tenant, counted entry by entry."""
        sums = self._shelf.live()
        for request in self._draft.requests if self._draft is not None else ():  # accepted, and not on the shelf yet
            for ledger in request.ledgers:
                sums[ledger.key] = sums.get(ledger.key, 0) + request.batch.items
        return sums

    def _lose(self, entry: Entry, context: Context | None) -> None:
        """Drop an entry that can no longer be read."""
        self._log.error("journal damaged; an entry is lost", file=str(entry.segment.path), items=entry.items)
        for place, pipeline in enumerate(context.pipelines if context is not None else ()):
            if (place, "") not in entry.done and context is not None:
                ledger = self._ledgers.get(pipeline, context.origin.receiver, context.origin.tenant)
                ledger.settle(Outcome.DROPPED, entry.items, "journal_damaged")
                self.settled(ledger)
        self.closed(entry)

    # -- writing

    def _soon(self) -> None:
        """Have what is not urgent written by and by."""
        if self._flush is None and not self._writing and not self._scheduled and self._lock >= 0:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self._commit)

    def _schedule(self) -> None:
        """Have requests written: now, unless that was done a moment ago and few have come since."""
        self._scheduled = True
        loop = asyncio.get_running_loop()
        wait = self._last_write + GROUP_INTERVAL - loop.time()
        if wait > 0 and self._unwritten < EARLY_BYTES and self._sync == "group":
            loop.call_later(wait, self._commit)
        else:
            loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Write everything that is known and not on disk."""
        self._scheduled = False
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._writing or self._lock < 0:
            return
        requests = self._take()
        try:
            draft = self._prepare(requests)
        except OSError as error:
            self._refuse(requests, error)
            self._end_write(requests)
        else:
            self._writing = True
            self._draft = draft
            self._write(draft)

    def _write(self, draft: Draft) -> None:
        """Have a draft written: by the thread, if the disk is to be waited for."""
        sync = self._sync != "none" and bool(draft.spots)
        self._last_write = asyncio.get_running_loop().time()
        started = time.perf_counter()

        def work() -> None:
            draft.segment.write(draft.parts, sync=sync)

        def done(error: BaseException | None) -> None:
            self._account.duration.observe(time.perf_counter() - started)
            self._writing = False
            self._draft = None
            if error is None:
                self._written(draft)
                self._delete(self._shelf.prune(self._current))
            elif isinstance(error, OSError):
                self._undo(draft, error)
            else:  # a bug; who waits is told all the same, and the next write may succeed
                self._log.error("the journal's writing broke", exc_info=error)
                self._undo(draft, OSError(errno.EIO, repr(error)))
            self._end_write(draft.requests)

        if sync:
            self._writer.submit(work, done)
            return
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - as what the thread does: `done` tells them apart
            failure = error
        done(failure)

    def _delete(self, segments: list[Segment]) -> None:
        """Delete segments, the oldest first, beside what goes on: a large file takes the file system its time."""

        def done(error: BaseException | None, path: Path) -> None:
            if error is not None:
                self._log.warning("journal segment not deleted", file=str(path), error=str(error))

        for segment in segments:
            self._deleter.submit(segment.delete, partial(done, path=segment.path))

    def _measure(self) -> None:
        self._room = min(self.max_size - self._shelf.stored, MAX_UNWRITTEN)

    def _end_write(self, requests: list[Request]) -> None:
        self._measure()
        for request in requests:
            self._unwritten -= len(request.batch.body)
        if self._requests:
            self._schedule()
        elif self._books:
            self._soon()
        if self._idle is not None and not self._writing and not self._idle.done():
            self._idle.set_result(None)

    def _take(self) -> list[Request]:
        """Take the requests that the next write holds."""
        requests = self._requests
        if self._sync == "always":
            count = 1
        elif self._unwritten < MAX_GROUP:
            count = MAX_GROUP_REQUESTS
        else:
            sizes = accumulate([len(request.batch.body) for request in requests])
            count = min(MAX_GROUP_REQUESTS, bisect_left(list(sizes), MAX_GROUP) + 1)
        self._requests = requests[count:]
        return requests[:count]

    def _prepare(self, requests: list[Request]) -> Draft:
        """Put a write together; raises `OSError` if there is no segment and none can be made."""
        segment = self._newest()
        branches = self._books.take_branches()
        draft = Draft(segment, self._context_numbers)
        if not segment.size:
            accounts = list(self._books.written.values())
            draft.begin_segment(Snapshot(segment.first, accounts, time.time(), self._adjusted))
        oldest = self._shelf.segments[0]
        if oldest is not segment and self._should_move(oldest):
            for index, record, context, done in self._shelf.living(oldest, MAX_GROUP):
                draft.move(oldest, index, record, context, done)
        for request in requests:
            draft.add(request)
            for ledger in request.ledgers:
                ledger.accepted += request.batch.items
                self._books.changed(ledger)
        draft.branches += branches
        self._books.close(draft)
        return draft

    def _newest(self) -> Segment:
        """Return the segment to write to: a new one when the one before is full."""
        segment = self._current
        if (
            segment is not None
            and segment.size < self._segment_bytes
            and len(self._context_numbers) < records.MAX_CONTEXTS // 4
        ):
            return segment
        self._number += 1
        segment = Segment.create(self.directory, self._number, self._next)
        try:
            os.fsync(self._lock)  # or the file itself might be gone after a power cut
        except OSError:
            with contextlib.suppress(OSError):
                segment.delete()
            raise
        self._current = segment
        self._shelf.segments.append(segment)
        return segment

    def _should_move(self, oldest: Segment) -> bool:
        """Tell whether little of the oldest segment is alive, and room grows short."""
        return 0 < oldest.live_bytes <= COMPACT_SHARE * oldest.size and 2 * self._shelf.stored >= self.max_size

    def _written(self, draft: Draft) -> None:
        """Go on from a write that is on disk: feed what it holds, and answer."""
        segment, shelf = draft.segment, self._shelf
        segment.contexts.update(draft.contexts)
        segment.size = draft.end
        index = shelf.add(segment, draft.spots)
        self._next = segment.end
        for old, old_index, size in draft.moved:
            if shelf.move(old, old_index, segment, index, size):
                self._books.released(segment, index)
            else:  # what has been done of it since was noted under its old number
                self._books.moved(draft, segment.first + index, list(shelf.done(segment, index)))
            index += 1
        self._books.on_disk(draft)
        self._account.commits.add()
        self._account.appended.add(len(draft.requests))
        if self._failure and self._has_room_again():
            self._log.info("the journal can be written again")
            self._failure = ""
        entries = []
        for place, request in enumerate(draft.requests, index):
            batch = request.batch
            entries.append(shelf.begin(segment, place, batch.items, HEADER_BYTES + len(batch.body)))
        for entry, request in zip(entries, draft.requests, strict=True):
            request.written(entry)

    def _undo(self, draft: Draft, error: OSError) -> None:
        """Take back what a write that failed would have done, and refuse those who wait for it."""
        for request in draft.requests:
            for ledger in request.ledgers:
                ledger.accepted -= request.batch.items
        self._books.take_back(draft)
        draft.forget_contexts()
        self._next = draft.next  # the file may have them after all, if it could not be cut: no number means two entries
        self._current = None  # what a file holds after a failed fsync, nobody knows
        if not draft.segment.size:
            self._shelf.segments.remove(draft.segment)
            with contextlib.suppress(OSError):
                draft.segment.delete()
        self._refuse(draft.requests, error)

    def _refuse(self, requests: list[Request], error: OSError) -> None:
        self._account.failures.add()
        self._disk_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        if self._disk_full:
            self._reserve.give_up()  # for the next write, which says what is released
        self._account.refused(len(requests), "journal_unwritable")
        if not self._failure:
            self._log.error("the journal cannot be written; senders are refused", error=error.strerror or str(error))
        self._failure = error.strerror or str(error)
        self._refuse_until = time.monotonic() + RETRY_INTERVAL
        refusal = self._refusal()
        for request in requests:
            request.refused(refusal)

    def _refusal(self) -> Overloaded:
        return Overloaded(
            f"the journal cannot be written: {self._failure}", retry_after=RETRY_INTERVAL, reason="journal_unwritable"
        )


def _full(journal: Journal) -> Overloaded:
    return Overloaded(
        f"the journal is full ({journal.stored} of {journal.max_size} bytes): what it holds must be delivered first",
        retry_after=5.0,
        reason="journal_full",
    )
