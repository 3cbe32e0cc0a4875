"""The journal: requests are on disk before they are answered, and until they are settled.

Invariants:

* A request is on disk (with `sync: none`, in the kernel) once it is acknowledged, and is replayed after a crash until
  every pipeline has settled all of it.
* The ledgers on disk are those in memory as of the last commit: each commit has the changed sums, the released entries
  and the settled branches in one record.
* A segment is deleted only when all before it are, and after its last release is on disk: a release is never older than
  its entry.
* A write that fails has changed nothing: senders that wait for it are refused, and a later one tries again.
* A request is acknowledged only if its segment is at its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.at_rest.loading import load_keys
from otelwp_agent.component import ComponentHealth
from otelwp_agent.errors import Overloaded
from otelwp_agent.journal import opening
from otelwp_agent.journal.admission import Admission
from otelwp_agent.journal.commits import CommitLoop
from otelwp_agent.journal.entry_store import EntryStore
from otelwp_agent.journal.failure import Failure
from otelwp_agent.journal.mark import Mark
from otelwp_agent.journal.metrics import JournalMetrics
from otelwp_agent.journal.pending_changes import PendingChanges, row_of
from otelwp_agent.journal.reserve import Reserve
from otelwp_agent.journal.segments import SegmentStore
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.sealing.message_memory import MessageMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import structlog

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.config.service import JournalConfig
    from otelwp_agent.config.storage_encryption import StorageEncryption
    from otelwp_agent.journal.claims import Done, JournalClaim, JournaledRequest
    from otelwp_agent.journal.commit_builder import PendingRequest
    from otelwp_agent.journal.records import ExporterRow, JournalRecord, RequestContext
    from otelwp_agent.journal.recovery import Recovered
    from otelwp_agent.model.ledgers import Ledgers
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.telemetry.metrics import Registry


class Journal:
    """A directory of segments. Use it from the event loop's thread alone; one process has it at a time."""

    def __init__(
        self,
        settings: JournalConfig,
        ledgers: Ledgers,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        messages: MessageMemory | None = None,
    ) -> None:
        """Store the sums of `ledgers`, and the ids of accepted `messages`; `open` opens the directory."""
        self.directory = Path(settings.directory)
        self.max_size = settings.max_size
        self.messages = MessageMemory() if messages is None else messages
        self.on_closed: Callable[[], None] = lambda: None
        """Called when an entry was closed: waiting ones may have capacity now."""
        self._ledgers = ledgers
        self._encryption = settings.encryption
        self._log = log
        self._changes = PendingChanges()
        self._entry_store = EntryStore(self, log)
        self._metrics = JournalMetrics(self._entry_store, settings.max_size, registry)
        self._reserve = Reserve(self.directory, log)
        self._failure = Failure(self._reserve, log)
        self._admission = Admission(self._entry_store, self._failure, settings.max_size, settings.max_tenant_share)
        self._store = SegmentStore(
            self.directory, settings.max_size, self._entry_store, self._changes, self._metrics, self._reserve, log
        )
        self._commits = CommitLoop(
            settings.sync,
            self._entry_store,
            self._changes,
            self._store,
            self._admission,
            self._failure,
            self._metrics,
            self.messages,
            log,
        )
        self.admit = self._admission.admit
        """Raises `Overloaded` if nothing can be accepted now."""

    def remember_exporters(self, exporters: Callable[[], Sequence[ExporterRow]]) -> None:
        """Include the sums that `exporters` returns in commits, about once a second, for audits of the journal."""
        self._changes.exporters = exporters

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        return self._entry_store.stored

    @property
    def waiting(self) -> int:
        """Entries that wait to be fed."""
        return self._entry_store.waiting

    @property
    def entries(self) -> int:
        """Requests that are not settled."""
        return self._entry_store.entries

    @property
    def failure(self) -> str:
        """Why the last write failed; "" if it did not."""
        return self._failure.message

    def health(self) -> ComponentHealth:
        """Return its health: unhealthy while it cannot be written or read, is full, or files have disappeared."""
        message = ""
        if self._failure.message:
            message = f"cannot be written: {self._failure.message}"
        elif self._entry_store.unreadable:
            message = f"{len(self._entry_store.unreadable)} entries cannot be read: check the disk"
        elif self._store.problem:
            message = self._store.problem
        elif self._admission.full:
            message = "full: senders are refused until something has been delivered"
        details = {
            "directory": str(self.directory),
            "bytes": self.stored,
            "max_size": self.max_size,
            "entries": self.entries,
            "waiting_entries": self.waiting,
        }
        return ComponentHealth(None, "journal", not message, message, details)

    # -- opening and closing

    def open(self) -> Recovered:
        """Lock and read the directory, and correct the ledgers; raises `StartError`."""
        self._store.keys = load_keys(self._encryption, "service.journal.encryption", own=True)
        recovered = self._store.open()
        self.messages.restore(recovered.messages)
        lost, again = opening.put_right(recovered, self._ledgers)
        self._store.adjusted = bool(lost or again or recovered.damage)
        self._changes.written = {ledger: row_of(ledger) for ledger in self._ledgers}
        self._report(recovered, lost, again)
        self._admission.closed = False
        self._reserve.hold()
        self._admission.measure()
        return recovered

    def encrypt_with(self, settings: StorageEncryption | None) -> None:
        """Encrypt what is written from now on with other keys; raises `StartError`, and then changes nothing."""
        keys, current = load_keys(settings, "service.journal.encryption", own=True), self._store.keys
        self._encryption = settings
        if _ids(keys) != _ids(current):
            self._store.use_keys(keys)
            self._log.info("journal keys changed", keys=keys.ids if keys is not None else [])

    def start(self) -> None:
        """Delete what a previous run has settled, and check each second that no file has disappeared."""
        self._store.delete_settled()
        self._commits.start()

    async def close(self) -> None:
        """Write all changes and unlock the directory. Entries that are not settled stay for the next start."""
        if self._store.lock >= 0:
            await self._commits.quiet()
            if self._store.current is not None or self._changes:
                self._changes.tell_exporters()
                self._commits.commit()
            await self._commits.quiet()
        self._admission.closed = True
        self._admission.measure()
        self._commits.stop()
        self._store.close()

    def _report(self, recovered: Recovered, lost: int, again: int) -> None:
        self._metrics.damaged.add(sum(damage.length for _, damage in recovered.damage))
        for path, damage in recovered.damage:
            self._log.error("journal damaged; part skipped", file=str(path), offset=damage.offset, bytes=damage.length)
        if lost:
            self._log.error("items lost to damage in the journal", items=lost)
        if recovered.mark_damaged:
            self._log.warning("journal mark damaged; whether the end of the journal is missing is unknown")
        if recovered.missing:
            self._metrics.lost.add(recovered.missing)
            self._log.error(
                "journal has lost its end; acknowledged requests are missing",
                entries=recovered.missing,
                directory=str(self.directory),
                advice="restore the directory from where it was moved to, or check the disk",
            )
            assert recovered.mark is not None  # noqa: S101 - or nothing would be known to be missing
            self._store.mark.write(Mark(recovered.mark.marker, recovered.mark.number, self._store.next, self.entries))
        if recovered.segments:
            self._log.info(
                "journal read",
                entries=self.entries,
                bytes=self.stored,
                torn_bytes=recovered.torn,
                settled_again=again,
            )

    # -- requests

    def append(self, request: PendingRequest) -> None:
        """Accept a request to be written; raise `Overloaded` if there is no capacity."""
        try:
            self.admit()
            batch = request.batch
            if batch.origin.tenant:
                self._admission.admit_tenant(batch.origin.tenant, len(batch.body))
        except Overloaded as error:
            self._metrics.refused(1, error.reason)
            raise
        self._commits.add(request)

    # -- what claims report

    def settled(self, ledger: Ledger) -> None:
        """Record that a ledger has changed."""
        self._changes.changed(ledger)

    def progressed(self, claim: JournalClaim) -> None:
        """Record that a branch has settled items while others have not."""
        self._changes.progressed(claim)
        self._commits.soon()

    def closed(self, entry: JournaledRequest) -> None:
        """Release an entry whose last claim was closed, or let it wait for a branch without capacity."""
        if self._entry_store.end(entry):
            self._changes.released(entry.segment, entry.index)
        else:
            self._changes.waits(entry)
        self._commits.soon()
        if entry.on_closed is not None:
            entry.on_closed(entry)
        self.on_closed()

    # -- reading again

    def replays(
        self, ready: Callable[[RequestContext, Done], bool]
    ) -> Iterator[tuple[JournaledRequest, JournalRecord, RequestContext] | None]:
        """Yield the entries that wait and can be fed, the oldest first; the caller feeds each at once.

        `ready` returns whether an entry with this context and these settled branches can be fed. Yields `None` after
        many that cannot. Damaged entries are dropped.
        """
        for replay in self._entry_store.replays(ready):
            if replay is None:
                yield None
                continue
            entry, record, context = replay
            if record is None or context is None:
                self._lose(entry, context)
            else:
                self._metrics.replayed.add()
                yield entry, record, context

    def live(self) -> dict[tuple[str, str, str], int]:
        """Return the items that are not settled, by pipeline, receiver and tenant, counted entry by entry."""
        sums = self._entry_store.live()
        builder = self._commits.builder
        for request in builder.requests if builder is not None else ():  # accepted, but not in the entry store yet
            for ledger in request.ledgers:
                sums[ledger.key] = sums.get(ledger.key, 0) + request.batch.items
        return sums

    def _lose(self, entry: JournaledRequest, context: RequestContext | None) -> None:
        """Drop an entry that can no longer be read."""
        self._log.error("journal damaged; an entry is lost", file=str(entry.segment.path), items=entry.items)
        for place, pipeline in enumerate(context.pipelines if context is not None else ()):
            if (place, "") not in entry.done and context is not None:
                ledger = self._ledgers.get(pipeline, context.origin.receiver, context.origin.tenant)
                ledger.settle(Outcome.DROPPED, entry.items, "journal_damaged")
                self.settled(ledger)
        self.closed(entry)


def _ids(keys: StorageKeys | None) -> list[str]:
    """Return the ids of the keys that write, then of those that read."""
    return [*keys.writing_ids, *keys.ids] if keys is not None else []
