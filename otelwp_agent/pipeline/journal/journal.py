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
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.pipeline.journal import records
from otelwp_agent.pipeline.journal.account import JournalAccount
from otelwp_agent.pipeline.journal.claims import NOTHING, Entry
from otelwp_agent.pipeline.journal.records import HEADER_BYTES, Commit, Context, Kind, Snapshot
from otelwp_agent.pipeline.journal.recovery import read_directory
from otelwp_agent.pipeline.journal.segment import FIRST_PARTLY_DONE, RELEASED, RUNNING, WAITING, Segment
from otelwp_agent.pipeline.journal.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import structlog

    from otelwp_agent.config.service import JournalConfig
    from otelwp_agent.model.batch import Batch, Origin
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.pipeline.journal.claims import Done, JournalClaim
    from otelwp_agent.pipeline.journal.records import Account, Record
    from otelwp_agent.pipeline.journal.recovery import Recovered
    from otelwp_agent.pipeline.ledgers import Ledgers
    from otelwp_agent.telemetry.metrics import Registry

SEGMENT_BYTES = 64 * 2**20
"""Largest segment; a journal of less room than sixteen of them has smaller ones."""
MAX_UNWRITTEN = 16 * 2**20
"""Bytes of bodies that may wait for a disk that does not keep up, before senders are refused."""
MAX_GROUP = 4 * 2**20
"""Bytes that one write holds, if there is more than one request in it."""
FLUSH_INTERVAL = 0.1
"""Seconds after which a release is written when no request comes with which it could be."""
RETRY_INTERVAL = 1.0
"""Seconds after a write that failed in which nothing is taken."""
COMPACT_SHARE = 0.25
"""The oldest segment, if less of it is alive, moves into the newest when the journal is half full."""
_PARTLY_DONE_STATES = 256 - FIRST_PARTLY_DONE


class Request(Protocol):
    """A request that is to be written, and who waits for that."""

    @property
    def batch(self) -> Batch:
        """What is written."""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells its context from others."""

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The pipelines that it enters."""

    @property
    def ledgers(self) -> Sequence[Ledger]:
        """Their accounts."""

    def origin(self) -> Origin:
        """Return what is to be remembered of where it came from."""

    def written(self, entry: Entry) -> None:
        """Go on: it is on disk."""

    def refused(self, error: Overloaded) -> None:
        """Give up: it cannot be written."""


class _Draft:
    """What one write holds, while it is put together and until it is on disk."""

    __slots__ = ("branches", "contexts", "moved", "offset", "parts", "released", "requests", "rows", "segment", "spots")

    def __init__(self, segment: Segment, requests: list[Request]) -> None:
        self.segment = segment
        self.requests = requests
        self.parts: list[bytes] = []
        self.offset = segment.size
        self.spots: list[tuple[int, int, int]] = []
        """Offset, context and items of each entry: those that move first, then those of the requests."""
        self.moved: list[tuple[Segment, int, int]] = []
        """Segment, index and bytes of each entry that moves."""
        self.contexts: dict[int, Context] = {}
        self.rows: dict[Ledger, Account] = {}
        self.released: list[tuple[Segment, int]] = []
        self.branches: list[tuple[int, int, str]] = []

    def add(self, parts: list[bytes]) -> None:
        self.parts += parts
        for part in parts:
            self.offset += len(part)


class Replay(NamedTuple):
    """An entry that was read again."""

    entry: Entry
    record: Record
    context: Context


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
        self.entries = 0
        """Requests that are not settled."""
        self.on_closed: Callable[[], None] = lambda: None
        """Called when an entry has been closed: there may be room for others."""
        self._sync = settings.sync
        self._segment_bytes = max(2**18, min(SEGMENT_BYTES, settings.max_size // 16))
        self._ledgers = ledgers
        self._log = log
        self._lock = -1
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        """The newest, if this run of the agent made it."""
        self._number = 0
        """Of the newest segment."""
        self._next = 0
        """Of the next entry, when a new segment begins."""
        self._adjusted = False
        self._context_numbers: dict[tuple[object, ...], int] = {}
        """Contexts that the newest segment has."""

        self._requests: list[Request] = []
        self._unwritten = 0
        self._writing = False
        self._scheduled = False
        self._flush: asyncio.TimerHandle | None = None
        self._writer = Writer()
        self._failure = ""
        self._refuse_until = 0.0
        self._idle: asyncio.Future[None] | None = None

        self._rows: dict[Ledger, Account] = {}
        """The accounts as the last commit has them."""
        self._changed: dict[Ledger, None] = {}
        self._released: list[tuple[Segment, int]] = []
        self._progressed: list[JournalClaim] = []
        self._branches: list[tuple[int, int, str]] = []
        """What is done of entries that wait again."""
        self._running: dict[tuple[int, int], Entry] = {}
        """Entries that run, by segment and index."""
        self._done_sets: list[Done] = []
        """What the states from `FIRST_PARTLY_DONE` on mean."""
        self._account = JournalAccount(self, registry)

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def waiting(self) -> int:
        """Entries that wait to be fed."""
        return sum(segment.waiting for segment in self._segments)

    @property
    def failure(self) -> str:
        """Why the last write failed; "" if it did not."""
        return self._failure

    # -- opening and closing

    def open(self) -> Recovered:
        """Take the directory, read what is in it, put the accounts right; raises `StartError`."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            recovered = read_directory(self.directory)
        except BlockingIOError as error:
            self._unlock()
            raise StartError(
                f"service.journal.directory: another agent is using {self.directory}: give each agent its own"
            ) from error
        except OSError as error:
            self._unlock()
            raise StartError(
                f"service.journal.directory: cannot use {self.directory}: {error.strerror or error}"
            ) from error
        self._restore(recovered)
        return recovered

    async def close(self) -> None:
        """Write what is known and let the directory go. What is not settled stays for the next start."""
        if self._lock >= 0:
            await self._quiet()
            if self._changed or self._released or self._progressed or self._branches:
                self._commit()
            await self._quiet()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._writer.close()
        for segment in self._segments:
            segment.close()
        self._segments = []
        self._current = None
        self._unlock()

    async def _quiet(self) -> None:
        """Wait until no request is to be written."""
        while self._writing or self._requests:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _restore(self, recovered: Recovered) -> None:
        """Go on from what was read."""
        for pipeline, receiver, tenant, accepted, settled, reasons in recovered.accounts.values():
            ledger = self._ledgers.get(pipeline, receiver, tenant)
            ledger.accepted, ledger.settled, ledger.dropped_reasons = accepted, list(settled), dict(reasons)
        lost = again = 0
        for ledger in list(self._ledgers):
            missing = ledger.in_flight - recovered.live[ledger.key]
            if missing > 0:
                ledger.settle(Outcome.DROPPED, missing, "journal_damaged")
                lost += missing
            elif missing < 0:
                ledger.accepted -= missing
                again -= missing
        self._adjusted = bool(lost or again or recovered.damage)
        self._segments = recovered.segments
        self._number = max((segment.number for segment in self._segments), default=0)
        self._next = max((segment.end for segment in self._segments), default=1)
        self.entries = recovered.entries
        for segment in self._segments:
            for seq in [seq for seq in recovered.branches if segment.first <= seq < segment.end]:
                segment.states[seq - segment.first] = self._state_of(frozenset(recovered.branches[seq]))
        self._rows = {ledger: _row(ledger) for ledger in self._ledgers}
        damaged = sum(damage.length for _, damage in recovered.damage)
        self._account.damaged.add(damaged)
        for path, damage in recovered.damage:
            self._log.error("journal damaged; stepped over", file=str(path), offset=damage.offset, bytes=damage.length)
        if lost:
            self._log.error("items lost to damage in the journal", items=lost)
        if self._segments:
            self._log.info(
                "journal read",
                entries=self.entries,
                bytes=self.stored,
                torn_bytes=recovered.torn,
                settled_again=again,
            )
        self._prune()

    # -- taking requests

    def admit(self) -> None:
        """Raise `Overloaded` if nothing can be taken now."""
        if self._failure and time.monotonic() < self._refuse_until:
            raise self._refusal()
        if self.stored + self._unwritten >= self.max_size:
            raise _full(self)
        if self._unwritten >= MAX_UNWRITTEN:
            raise Overloaded("the disk under the journal does not keep up", retry_after=1.0, reason="journal_slow")

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
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._commit)

    # -- what claims tell

    def settled(self, ledger: Ledger) -> None:
        """Hear that an account has changed."""
        self._changed[ledger] = None

    def progressed(self, claim: JournalClaim) -> None:
        """Hear that a branch has settled something while others have not."""
        self._progressed.append(claim)
        self._soon()

    def closed(self, entry: Entry) -> None:
        """Hear that no claim of an entry runs any more: release it, or have it wait for what has no room."""
        segment, index = entry.segment, entry.index
        del self._running[segment.number, index]
        if entry.parked:
            segment.states[index] = self._state_of(entry.done)
            segment.waiting += 1
            self._branches += [(entry.seq, place, name) for place, name in entry.done]
            self._soon()
        else:
            segment.states[index] = RELEASED
            segment.live -= 1
            segment.live_bytes -= entry.size
            self.entries -= 1
            self._released.append((segment, index))
            self._soon()
        if entry.on_closed is not None:
            entry.on_closed(entry)
        self.on_closed()

    def _state_of(self, done: Done) -> int:
        """Return the state of an entry that waits, of which this much is done."""
        if not done:
            return WAITING
        if done not in self._done_sets:
            if len(self._done_sets) >= _PARTLY_DONE_STATES:
                return WAITING  # as much as a byte can tell; what is done of it will be done again
            self._done_sets.append(done)
        return FIRST_PARTLY_DONE + self._done_sets.index(done)

    # -- reading again

    def replays(self, ready: Callable[[tuple[str, ...], Done], bool]) -> Iterator[Replay]:
        """Yield the entries that wait and for which there is room, the oldest first, each to be fed at once.

        `ready` tells of the pipelines of a context, and of what they have done, whether there is. What is read and
        turns out to be damaged is dropped and told.
        """
        for segment in list(self._segments):
            states = [WAITING, *range(FIRST_PARTLY_DONE, FIRST_PARTLY_DONE + len(self._done_sets))]
            for state in states if segment.waiting else ():
                done = NOTHING if state == WAITING else self._done_sets[state - FIRST_PARTLY_DONE]
                index = segment.states.find(state)
                while index >= 0:
                    context = segment.contexts.get(segment.context_numbers[index])
                    if context is None or ready(context.pipelines, done):
                        replay = self._read(segment, index, done)
                        if replay is not None:
                            yield replay
                    index = segment.states.find(state, index + 1)

    def live(self) -> dict[tuple[str, str, str], int]:
        """Return the items that are not settled, by account, counted entry by entry."""
        sums: dict[tuple[str, str, str], int] = {}
        for segment in self._segments:
            for index, state in enumerate(segment.states):
                context = segment.contexts.get(segment.context_numbers[index])
                if state == RELEASED or context is None:
                    continue
                done: Done = NOTHING
                if state == RUNNING:
                    done = self._running[segment.number, index].done
                elif state >= FIRST_PARTLY_DONE:
                    done = self._done_sets[state - FIRST_PARTLY_DONE]
                for place, pipeline in enumerate(context.pipelines):
                    if (place, "") not in done:
                        key = (pipeline, context.origin.receiver, context.origin.tenant)
                        sums[key] = sums.get(key, 0) + segment.items[index]
        return sums

    def _read(self, segment: Segment, index: int, done: Done) -> Replay | None:
        """Read an entry and set it running; if it is damaged, drop it."""
        record = segment.entry(index)
        context = segment.contexts.get(record.context) if record is not None else None
        segment.waiting -= 1
        segment.states[index] = RUNNING
        if record is None or context is None:
            self._lose(segment, index, done)
            return None
        entry = self._run(segment, index, record.items, record.end - record.offset)
        entry.done = done
        self._account.replayed.add()
        return Replay(entry, record, context)

    def _run(self, segment: Segment, index: int, items: int, size: int) -> Entry:
        entry = self._running[segment.number, index] = Entry(self, segment, index, items, size)
        return entry

    def _lose(self, segment: Segment, index: int, done: Done) -> None:
        """Drop an entry that can no longer be read."""
        items = segment.items[index]
        context = segment.contexts.get(segment.context_numbers[index])
        self._log.error("journal damaged; an entry is lost", file=str(segment.path), items=items)
        entry = self._run(segment, index, items, 0)
        for place, pipeline in enumerate(context.pipelines if context is not None else ()):
            if (place, "") not in done and context is not None:
                ledger = self._ledgers.get(pipeline, context.origin.receiver, context.origin.tenant)
                ledger.settle(Outcome.DROPPED, items, "journal_damaged")
                self.settled(ledger)
        self.closed(entry)

    # -- writing

    def _soon(self) -> None:
        """Have what is not urgent written by and by."""
        if self._flush is None and not self._writing and not self._scheduled and self._lock >= 0:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self._commit)

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
            return
        self._writing = True
        started = time.perf_counter()
        sync = self._sync != "none" and bool(draft.spots)

        def work() -> None:
            draft.segment.write(draft.parts, sync=sync)

        def done(error: BaseException | None) -> None:
            self._account.duration.observe(time.perf_counter() - started)
            self._writing = False
            if isinstance(error, OSError):
                self._undo(draft, error)
            elif error is not None:
                raise error
            else:
                self._written(draft)
                self._prune()
            self._end_write(requests)

        if sync:
            self._writer.submit(work, done)
            return
        try:
            work()
        except OSError as error:
            done(error)
        else:
            done(None)

    def _end_write(self, requests: list[Request]) -> None:
        for request in requests:
            self._unwritten -= len(request.batch.body)
        if self._requests:
            self._commit()
        elif self._changed or self._released or self._progressed or self._branches:
            self._soon()
        if self._idle is not None and not self._writing and not self._idle.done():
            self._idle.set_result(None)

    def _take(self) -> list[Request]:
        """Take the requests that the next write holds."""
        requests = self._requests
        size = 0
        for count, request in enumerate(requests, 1):
            size += len(request.batch.body)
            if size >= MAX_GROUP or self._sync == "always":
                self._requests = requests[count:]
                return requests[:count]
        self._requests = []
        return requests

    def _prepare(self, requests: list[Request]) -> _Draft:
        """Put a write together; raises `OSError` if there is no segment and none can be made."""
        draft = _Draft(self._newest(), requests)
        segment = draft.segment
        marker = segment.marker
        if not segment.size:
            self._context_numbers.clear()
            rows = list(self._rows.values())
            snapshot = Snapshot(segment.first, rows, time.time(), self._adjusted)
            draft.add(records.other(marker, Kind.SNAPSHOT, snapshot.encode()))
        self._compact(draft)
        first = seq = segment.end + len(draft.moved)
        for request in requests:
            batch = request.batch
            number = self._context_numbers.get(request.key)
            if number is None:
                context = Context(request.origin(), request.pipelines)
                number = self._add_context(draft, request.key, context)
            draft.spots.append((draft.offset, number, batch.items))
            draft.add(records.entry(marker, seq, batch.signal, number, batch.items, batch.body))
            seq += 1
            for ledger in request.ledgers:
                ledger.accepted += batch.items
                self._changed[ledger] = None
        draft.rows = {ledger: _row(ledger) for ledger in self._changed}
        self._changed.clear()
        draft.released, self._released = self._released, []
        draft.branches += self._branches + self._branches_done()
        self._branches = []
        released = [segment.first + index for segment, index in draft.released]
        commit = Commit(range(first, seq), list(draft.rows.values()), released, draft.branches)
        draft.add(records.other(marker, Kind.COMMIT, commit.encode()))
        return draft

    def _newest(self) -> Segment:
        """Return the segment to write to: a new one when the one before is full."""
        segment = self._current
        if segment is not None:
            if segment.size < self._segment_bytes and len(self._context_numbers) < records.MAX_CONTEXTS - 1:
                return segment
            self._next = segment.end
        self._number += 1
        segment = self._current = Segment.create(self.directory, self._number, self._next)
        self._segments.append(segment)
        os.fsync(self._lock)
        return segment

    def _add_context(self, draft: _Draft, key: tuple[object, ...], context: Context) -> int:
        number = self._context_numbers[key] = len(self._context_numbers)
        draft.contexts[number] = context
        record = records.other(draft.segment.marker, Kind.CONTEXT, context.encode(), number)
        draft.add(record)
        draft.add(record)  # twice: damage to the only one would cost every entry that needs it
        return number

    def _branches_done(self) -> list[tuple[int, int, str]]:
        """Return what is done of entries that are not."""
        rows: dict[tuple[int, int, str], None] = {}
        for claim in self._progressed:
            entry = claim.entry
            if entry.open or entry.parked:
                rows.update(dict.fromkeys((entry.seq, place, name) for place, name in entry.done))
                rows.update(dict.fromkeys((entry.seq, claim.pipeline, name) for name in claim.branches_done()))
        self._progressed = []
        return list(rows)

    def _compact(self, draft: _Draft) -> None:
        """Move what is alive of the oldest segment into the newest, some of it at a time, when room grows short."""
        oldest = self._segments[0]
        if oldest is draft.segment or not oldest.live or 2 * self.stored < self.max_size:
            return
        if oldest.live_bytes > COMPACT_SHARE * oldest.size:
            return
        moving = 0
        for index, state in enumerate(oldest.states):
            if state == RELEASED or moving > MAX_GROUP:
                continue
            old = oldest.entry(index)
            context = oldest.contexts.get(oldest.context_numbers[index])
            if old is None or context is None:
                continue  # it is dropped when its turn comes to be fed
            origin = context.origin
            key = (
                "moved",
                origin.receiver,
                origin.transport,
                origin.tenant,
                *origin.headers.items(),
                context.pipelines,
            )
            number = self._context_numbers.get(key)
            if number is None:
                number = self._add_context(draft, key, context)
            seq = draft.segment.end + len(draft.moved)
            entry = self._running.get((oldest.number, index))
            done = entry.done if entry is not None else self._done_of(state)
            draft.branches += [(seq, place, name) for place, name in done]
            parts = records.moved(draft.segment.marker, seq, number, old)
            draft.spots.append((draft.offset, number, old.items))
            draft.moved.append((oldest, index, sum(map(len, parts))))
            draft.add(parts)
            moving += len(old.payload)

    def _done_of(self, state: int) -> Done:
        return self._done_sets[state - FIRST_PARTLY_DONE] if state >= FIRST_PARTLY_DONE else NOTHING

    def _written(self, draft: _Draft) -> None:
        """Go on from a write that is on disk: feed what it holds, and answer."""
        segment = draft.segment
        segment.contexts.update(draft.contexts)
        first = len(segment.states)
        for offset, number, items in draft.spots:
            segment.offsets.append(offset)
            segment.context_numbers.append(number)
            segment.items.append(items)
        segment.size = draft.offset
        segment.states.extend(bytes([RUNNING]) * len(draft.spots))
        segment.kept += len(draft.spots)
        for place, (old, index, size) in enumerate(draft.moved, first):
            self._move(old, index, segment, place, size)
        self._rows.update(draft.rows)
        for released, _ in draft.released:
            released.kept -= 1
        self._account.commits.add()
        self._account.appended.add(len(draft.requests))
        if self._failure:
            self._log.info("the journal can be written again")
            self._failure = ""
        entries: list[Entry] = []
        for place, request in enumerate(draft.requests, first + len(draft.moved)):
            size = HEADER_BYTES + len(request.batch.body)
            segment.live += 1
            segment.live_bytes += size
            self.entries += 1
            entries.append(self._run(segment, place, request.batch.items, size))
        for entry, request in zip(entries, draft.requests, strict=True):
            request.written(entry)

    def _move(self, old: Segment, index: int, segment: Segment, place: int, size: int) -> None:
        """Have an entry stand where it has been copied to."""
        state = old.states[index]
        segment.states[place] = state
        if state == RELEASED:  # while it was being written
            self._released.append((segment, place))
            return
        entry = self._running.pop((old.number, index), None)
        if entry is not None:
            entry.segment, entry.index, entry.size = segment, place, size
            self._running[segment.number, place] = entry
        else:
            old.waiting -= 1
            segment.waiting += 1
        old.states[index] = RELEASED
        old.live -= 1
        old.kept -= 1
        segment.live += 1
        segment.live_bytes += size

    def _undo(self, draft: _Draft, error: OSError) -> None:
        """Take back what a write that failed would have done, and refuse those who wait for it."""
        for request in draft.requests:
            for ledger in request.ledgers:
                ledger.accepted -= request.batch.items
        self._changed |= dict.fromkeys(draft.rows)
        self._released[:0] = draft.released
        self._branches += draft.branches
        for key, number in list(self._context_numbers.items()):
            if number in draft.contexts:
                del self._context_numbers[key]
        self._current = None  # what a file holds after a failed fsync, nobody knows; and a full disk wants it deleted
        if not draft.segment.size:
            self._segments.remove(draft.segment)
            with contextlib.suppress(OSError):
                draft.segment.delete()
        self._refuse(draft.requests, error)

    def _refuse(self, requests: list[Request], error: OSError) -> None:
        self._account.failures.add()
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            self._prune(full=True)
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

    def _prune(self, *, full: bool = False) -> None:
        """Delete the oldest segments as long as nothing in them is needed.

        On a `full` disk there is no room even for saying so: then it is enough that everything in them is settled.
        """
        while self._segments and self._segments[0] is not self._current:
            if self._segments[0].live if full else self._segments[0].kept:
                break
            segment = self._segments.pop(0)
            try:
                segment.delete()
            except OSError as error:
                self._log.warning("journal segment not deleted", file=str(segment.path), error=error.strerror)


def _row(ledger: Ledger) -> Account:
    return (*ledger.key, ledger.accepted, list(ledger.settled), dict(ledger.dropped_reasons))


def _full(journal: Journal) -> Overloaded:
    return Overloaded(
        f"the journal is full ({journal.stored} of {journal.max_size} bytes): what it holds must be delivered first",
        retry_after=5.0,
        reason="journal_full",
    )
