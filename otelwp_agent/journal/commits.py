"""Group commit: write what has arrived, and everything else that changed, with one fsync.

Requests that arrive while one commit is being written are written together by the next. A thread writes, so that the
event loop continues. A commit that fails has changed nothing: the senders that wait for it are refused, and a later one
tries again.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from otelwp_agent.journal.commit_builder import CommitBuilder
from otelwp_agent.journal.mark import Mark
from otelwp_agent.journal.records import HEADER_BYTES, JournalSnapshot
from otelwp_agent.journal.segment import DisplacedError
from otelwp_agent.journal.writer import Writer

if TYPE_CHECKING:
    import structlog

    from otelwp_agent.journal.admission import Admission
    from otelwp_agent.journal.commit_builder import PendingRequest
    from otelwp_agent.journal.entry_store import EntryStore
    from otelwp_agent.journal.failure import Failure
    from otelwp_agent.journal.metrics import JournalMetrics
    from otelwp_agent.journal.pending_changes import PendingChanges
    from otelwp_agent.journal.segments import SegmentStore
    from otelwp_agent.sealing.message_memory import MessageMemory

MAX_GROUP = 4 * 2**20
"""Maximum bytes of one commit with more than one request."""
MAX_GROUP_REQUESTS = 4096
GROUP_INTERVAL = 0.005
"""Seconds between two commits under load: requests that arrive meanwhile share the second one. A request that arrives
alone does not wait."""
EARLY_BYTES = 2**21
"""Bytes of waiting requests that start a commit at once."""
FLUSH_INTERVAL = 0.1
"""Seconds after which releases are written if no request arrives."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks that the directory and all segments are still at their paths."""


class CommitLoop:
    """Writes one commit after another. Use it from the event loop's thread alone."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one journal
        self,
        sync: str,
        entry_store: EntryStore,
        changes: PendingChanges,
        store: SegmentStore,
        admission: Admission,
        failure: Failure,
        metrics: JournalMetrics,
        messages: MessageMemory,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Prepare; `sync` is the setting of the configuration."""
        self.builder: CommitBuilder | None = None
        """The commit that is being written."""
        self._sync = sync
        self._entry_store = entry_store
        self._changes = changes
        self._store = store
        self._admission = admission
        self._failure = failure
        self._metrics = metrics
        self._messages = messages
        self._log = log
        self._requests: list[PendingRequest] = []
        self._scheduled = False
        self._last_write = 0.0
        """When the last write began, on the loop's clock."""
        self._flush: asyncio.TimerHandle | None = None
        self._check: asyncio.TimerHandle | None = None
        self._check_due = False
        self._retries = 0
        """Consecutive commits whose segment disappeared."""
        self._mark_failure = ""
        self._writer = Writer()
        self._idle: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Start to check each second that no file has disappeared."""
        self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._on_check)

    def add(self, request: PendingRequest) -> None:
        """Write a request with the next commit."""
        self._requests.append(request)
        self._admission.add(request.batch.origin.tenant, len(request.batch.body))
        if self.builder is None and not self._scheduled:
            self._schedule()

    def soon(self) -> None:
        """Write changes that are not urgent within `FLUSH_INTERVAL`."""
        if self._flush is None and self.builder is None and not self._scheduled and not self._admission.closed:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self.commit)

    async def quiet(self) -> None:
        """Wait until all requests are written or refused."""
        while self.builder is not None or self._requests:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def stop(self) -> None:
        """Cancel the timers, and end the thread after its current write."""
        for timer in (self._flush, self._check):
            if timer is not None:
                timer.cancel()
        self._flush = self._check = None
        self._writer.close()

    def commit(self) -> None:
        """Write all requests and changes that are not on disk."""
        self._scheduled = False
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self.builder is not None or self._admission.closed:
            return
        requests = self._take()
        try:
            builder = self._prepare(requests)
        except OSError as error:
            self._refuse(requests, error)
            self._end(requests)
        else:
            self.builder = builder
            self._write(builder)

    def _on_check(self) -> None:
        """Check that no file has disappeared, now or after the current write."""
        self.start()
        if self.builder is not None:
            self._check_due = True
        elif self._store.find_displaced() or self._store.must_copy:
            self.commit()

    def _schedule(self) -> None:
        """Commit now, or a little later if the last commit was a moment ago and few requests have arrived since."""
        self._scheduled = True
        loop = asyncio.get_running_loop()
        wait = self._last_write + GROUP_INTERVAL - loop.time()
        if wait > 0 and self._admission.unwritten < EARLY_BYTES and self._sync == "group":
            loop.call_later(wait, self.commit)
        else:
            loop.call_soon(self.commit)

    def _take(self) -> list[PendingRequest]:
        """Remove and return the requests for the next commit."""
        requests = self._requests
        if self._sync == "always":
            count = 1
        elif self._admission.unwritten < MAX_GROUP:
            count = MAX_GROUP_REQUESTS
        else:
            sizes = accumulate([len(request.batch.body) for request in requests])
            count = min(MAX_GROUP_REQUESTS, bisect_left(list(sizes), MAX_GROUP) + 1)
        self._requests = requests[count:]
        return requests[:count]

    def _prepare(self, requests: list[PendingRequest]) -> CommitBuilder:
        """Return a commit; raises `OSError` if there is no segment and none can be created."""
        segment = self._store.newest()
        branches = self._changes.take_branches()
        builder = CommitBuilder(segment, self._store.context_numbers)
        if not segment.size:
            accounts = list(self._changes.written.values())
            remembered = self._messages.rows()
            snapshot = JournalSnapshot(segment.first, accounts, time.time(), self._store.adjusted, remembered)
            builder.begin_segment(snapshot)
        source = self._store.source(segment)
        if source is not None:
            for index, record, context, done in self._entry_store.living(source, MAX_GROUP):
                builder.move(source, index, record, context, done)
            self._store.copied(source, len(builder.moved))
        for request in requests:
            builder.add(request)
            for ledger in request.ledgers:
                ledger.accepted += request.batch.items
                self._changes.changed(ledger)
        builder.branches += branches
        self._changes.close(builder)
        return builder

    def _write(self, builder: CommitBuilder) -> None:
        """Write a commit; in the thread if it includes an `fsync`."""
        sync = self._sync != "none" and bool(builder.spots)
        self._last_write = asyncio.get_running_loop().time()
        started = time.perf_counter()
        segment, live = builder.segment, self._entry_store.entries + len(builder.requests)
        mark = Mark(segment.marker, segment.number, builder.next, live)

        def work() -> None:
            segment.write(builder.parts, sync=sync)
            self._store.mark.write(mark)

        def done(error: BaseException | None) -> None:
            self._metrics.duration.observe(time.perf_counter() - started)
            self._done(builder, error)

        if sync:
            self._writer.submit(work, done)
            return
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - as in the thread: `done` handles it
            failure = error
        done(failure)

    def _done(self, builder: CommitBuilder, error: BaseException | None) -> None:
        self.builder = None
        requests = builder.requests
        if error is None:
            self._retries = 0
            self._written(builder)
            self._store.delete_settled()
        else:
            self._undo(builder)
            if isinstance(error, DisplacedError):
                self._check_due = True
                self._retries += 1
            if isinstance(error, DisplacedError) and self._retries == 1:
                self._requests[:0], requests = requests, []  # once more, into another segment
            elif isinstance(error, OSError):
                self._refuse(requests, error)
            else:  # a bug: the senders must get an answer, and the next commit may succeed
                self._log.error("the journal's writing broke", exc_info=error)
                self._refuse(requests, OSError(repr(error)))
        self._end(requests)

    def _end(self, requests: list[PendingRequest]) -> None:
        for request in requests:
            self._admission.remove(request.batch.origin.tenant, len(request.batch.body))
        if self._check_due:
            self._check_due = False
            self._store.find_displaced()
        self._admission.measure()
        if self._requests or (self._store.must_copy and not self._failure.message):
            self._schedule()
        elif self._changes:
            self.soon()
        if self._idle is not None and self.builder is None and not self._requests and not self._idle.done():
            self._idle.set_result(None)

    def _written(self, builder: CommitBuilder) -> None:
        """Handle a commit that is on disk: answer its requests and feed them to their pipelines."""
        segment, entry_store = builder.segment, self._entry_store
        segment.contexts.update(builder.contexts)
        segment.size = builder.end
        index = entry_store.add(segment, builder.spots)
        self._store.next = segment.end
        for old, old_index, size in builder.moved:
            if entry_store.move(old, old_index, segment, index, size):
                self._changes.released(segment, index)
            else:  # what was settled meanwhile was recorded under its old number
                self._changes.moved(builder, segment.first + index, list(entry_store.done(segment, index)))
            index += 1
        self._changes.on_disk(builder)
        self._metrics.commits.add()
        self._metrics.appended.add(len(builder.requests))
        self._failure.clear()
        self._report_mark()
        entries = []
        overhead = HEADER_BYTES + (segment.cipher.overhead if segment.cipher is not None else 0)
        for place, request in enumerate(builder.requests, index):
            batch = request.batch
            entries.append(entry_store.begin(segment, place, batch.items, overhead + len(batch.body)))
        for entry, request in zip(entries, builder.requests, strict=True):
            request.written(entry)

    def _report_mark(self) -> None:
        failure = self._store.mark.failure
        if failure and not self._mark_failure:
            self._log.warning("journal mark not written; a lost tail would not be noticed", error=failure)
        self._mark_failure = failure

    def _undo(self, builder: CommitBuilder) -> None:
        """Undo the changes of a commit that failed."""
        for request in builder.requests:
            for ledger in request.ledgers:
                ledger.accepted -= request.batch.items
        self._changes.take_back(builder)
        builder.forget_contexts()
        self._store.undo(builder)

    def _refuse(self, requests: list[PendingRequest], error: OSError) -> None:
        self._metrics.failures.add()
        self._metrics.refused(len(requests), "journal_unwritable")
        refusal = self._failure.set(error)
        for request in requests:
            request.refused(refusal)
