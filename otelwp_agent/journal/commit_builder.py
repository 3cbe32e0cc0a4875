"""Encode the records of one write of the journal, and keep them until they are on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson

from otelwp_agent.journal import records
from otelwp_agent.journal.records import Commit, RecordKind, RequestContext
from otelwp_agent.sealing.message_memory import row_of_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.errors import Overloaded
    from otelwp_agent.journal.claims import Done, JournaledRequest
    from otelwp_agent.journal.entry_store import Spot
    from otelwp_agent.journal.records import Account, ExporterRow, JournalRecord, JournalSnapshot
    from otelwp_agent.journal.segment import Segment
    from otelwp_agent.model.batch import Batch, Origin
    from otelwp_agent.model.receipt import Ledger


class PendingRequest(Protocol):
    """A request that is to be written, with the sender that waits for it."""

    @property
    def batch(self) -> Batch:
        """The batch to write."""

    @property
    def key(self) -> tuple[object, ...]:
        """A key that identifies its context."""

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Ids of the pipelines that it is for."""

    @property
    def ledgers(self) -> Sequence[Ledger]:
        """The ledgers of these pipelines."""

    def origin(self) -> Origin:
        """Return the origin to store."""

    def written(self, entry: JournaledRequest) -> None:
        """Acknowledge and feed the request: it is on disk."""

    def refused(self, error: Overloaded) -> None:
        """Refuse the request: it cannot be written."""


class CommitBuilder:
    """Records for the end of one segment: entries that move there, then those of requests, then the commit."""

    __slots__ = (
        "_numbers", "_offset", "branches", "contexts", "moved", "parts", "released", "repeated", "requests", "rows",
        "segment", "spots",
    )  # fmt: skip

    def __init__(self, segment: Segment, numbers: dict[tuple[object, ...], int]) -> None:
        """Start; `numbers` maps the contexts of the segment to their numbers, and gets those that are added."""
        self.segment = segment
        self.parts: list[bytes] = []
        self.spots: list[Spot] = []
        """Offset, context and items of each moved entry, then of each request."""
        self.moved: list[tuple[Segment, int, int]] = []
        """Old segment, index and bytes of each moved entry."""
        self.requests: list[PendingRequest] = []
        self.contexts: dict[int, RequestContext] = {}
        """Contexts that this write adds."""
        self.rows: dict[Ledger, Account] = {}
        """The ledgers that it changes."""
        self.released: list[tuple[Segment, int]] = []
        self.repeated: Sequence[int] = ()
        self.branches: list[tuple[int, int, str]] = []
        self._numbers = numbers
        self._offset = segment.size

    @property
    def end(self) -> int:
        """End of the segment once this is written."""
        return self._offset

    @property
    def next(self) -> int:
        """The number of the next entry."""
        return self.segment.end + len(self.spots)

    def begin_segment(self, snapshot: JournalSnapshot) -> None:
        """Add the key of an encrypted segment, then the snapshot of all ledgers."""
        self._numbers.clear()
        segment = self.segment
        if segment.cipher is not None:
            key = records.other(segment.marker, RecordKind.KEY, segment.data_key)
            self._add(key)
            self._add(key)  # twice: damage to the only one would cost the whole segment
        self._add_other(RecordKind.SNAPSHOT, snapshot.encode())

    def move(self, old: Segment, index: int, record: JournalRecord, context: RequestContext, done: Done) -> None:
        """Copy an entry from an older segment. All moved entries come before all requests."""
        origin = context.origin
        sender = (origin.receiver, origin.transport, origin.tenant, *origin.headers.items())
        number = self._number_of(("moved", sender, context.pipelines, context.encodings), context)
        seq = self.next
        self.branches += [(seq, place, name) for place, name in done]
        parts = records.moved(self.segment.marker, seq, number, record, self.segment.cipher, self._offset)
        self.moved.append((old, index, sum(map(len, parts))))
        self._add_entry(parts, number, record.items)

    def add(self, request: PendingRequest) -> None:
        """Add a request."""
        number = self._numbers.get(request.key)
        if number is None:
            context = RequestContext(request.origin(), request.pipelines, request.batch.encodings)
            number = self._number_of(request.key, context)
        batch, segment = request.batch, self.segment
        if batch.message is not None:
            self._add_other(RecordKind.MESSAGE, orjson.dumps(row_of_message(batch.message)))
        parts = records.entry(
            segment.marker,
            self.next,
            batch.signal,
            number,
            batch.items,
            batch.body,
            segment.cipher,
            self._offset,
        )
        self.requests.append(request)
        self._add_entry(parts, number, batch.items)

    def commit(
        self,
        rows: dict[Ledger, Account],
        released: list[tuple[Segment, int]],
        exporters: Sequence[ExporterRow],
        repeated: Sequence[int] = (),
    ) -> None:
        """Add the commit: what is true when this is on disk; `repeated` are numbers of entries released before."""
        self.rows, self.released, self.repeated = rows, released, repeated
        entries = range(self.segment.end + len(self.moved), self.next)
        seqs = [segment.first + index for segment, index in released]
        seqs += repeated
        commit = Commit(entries, list(rows.values()), seqs, self.branches, exporters)
        self._add_other(RecordKind.COMMIT, commit.encode())

    def forget_contexts(self) -> None:
        """Remove the contexts that this adds: it cannot be written."""
        for key in [key for key, number in self._numbers.items() if number in self.contexts]:
            del self._numbers[key]

    def _number_of(self, key: tuple[object, ...], context: RequestContext) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            self.contexts[number] = context
            payload = context.encode()
            self._add_other(RecordKind.CONTEXT, payload, number)
            self._add_other(RecordKind.CONTEXT, payload, number)  # damage to the only one would cost all its entries
        return number

    def _add_entry(self, parts: list[bytes], number: int, items: int) -> None:
        self.spots.append((self._offset, number, items))
        self._add(parts)

    def _add_other(self, kind: RecordKind, payload: bytes, context: int = 0) -> None:
        segment = self.segment
        self._add(records.other(segment.marker, kind, payload, context, segment.cipher, self._offset))

    def _add(self, parts: list[bytes]) -> None:
        self.parts += parts
        for part in parts:
            self._offset += len(part)
