"""Encode and decode the records of the journal. No I/O.

A segment is a sequence of records, each with a header and a payload::

    marker  8 bytes   random, the same throughout one segment and part of its file's name
    kind    u8        see `RecordKind`
    signal  u8        of an entry; else 0
    context u16       of an entry and of a context: which one, within the segment
    length  u32       bytes of the payload
    items   u32       of an entry; else 0
    seq     u64       of an entry; else 0
    crc     u32       CRC-32 of the header before it and of the payload

All numbers are little-endian. The marker lets a reader skip damage: it looks for the next place with the marker
and a correct checksum. No sender of telemetry knows the marker, so no body can look like a record.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import orjson
from isal.isal_zlib import crc32

from otelwp_agent.journal.resync import walk
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.sealing.message_memory import MessageRow

MARKER_BYTES = 8
_HEAD = struct.Struct("<8sBBHIIQ")
_CRC = struct.Struct("<I")
_SEQ = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _HEAD.size + _CRC.size
MAX_CONTEXTS = 0xFFFF
"""Largest number of contexts in one segment."""
WINDOW = 1 << 20
"""Bytes to read at once."""

_SIGNALS = (Signal.TRACES, Signal.METRICS, Signal.LOGS)
_NUMBERS = {signal: number for number, signal in enumerate(_SIGNALS)}


class RecordKind(IntEnum):
    """The kind of a record's payload."""

    SNAPSHOT = 1
    """All ledgers at the start of the segment (`JournalSnapshot`). Every segment starts with it."""
    CONTEXT = 2
    """Origin and pipelines of entries (`RequestContext`)."""
    ENTRY = 3
    """A request: its body."""
    MOVED = 4
    """A request copied from an older segment: its number there (u64), then its body. It no longer counts there."""
    COMMIT = 5
    """The end of one write (`Commit`)."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Origin of a request, the pipelines that it is for, and the encodings of its body."""

    origin: Origin
    pipelines: tuple[str, ...]
    encodings: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as JSON."""
        origin = self.origin
        data: dict[str, object] = {
            "receiver": origin.receiver,
            "transport": origin.transport,
            "tenant": origin.tenant,
            "headers": dict(origin.headers),
            "pipelines": self.pipelines,
        }
        if self.encodings:
            data["encodings"] = self.encodings
        return orjson.dumps(data)

    @classmethod
    def decode(cls, payload: memoryview) -> RequestContext:
        """Read what `encode` wrote."""
        data = orjson.loads(payload)
        origin = Origin(data["receiver"], data["transport"], data["tenant"], data["headers"])
        return cls(origin, tuple(data["pipelines"]), tuple(data.get("encodings", ())))


Account = tuple[str, str, str, int, list[int], dict[str, int]]
"""The row of a ledger: pipeline, receiver, tenant; items accepted, items of each outcome, items dropped by reason."""
ExporterRow = tuple[str, int, int, dict[str, int], int]
"""Sums of an exporter since the start of the agent: id; items accepted, delivered, dropped by reason, in flight."""


@dataclass(frozen=True, slots=True)
class JournalSnapshot:
    """All ledgers at the start of a segment, whose first entry has number `first`."""

    first: int
    accounts: Sequence[Account]
    time: float
    """Seconds since 1970."""
    adjusted: bool = False
    """Whether the ledgers were corrected at a start, so that they differ from the end of the segment before."""
    messages: Sequence[MessageRow] = ()
    """The messages that were accepted before and are still remembered."""

    def encode(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(
            {
                "first": self.first,
                "accounts": self.accounts,
                "time": self.time,
                "adjusted": self.adjusted,
            }
            | ({"messages": self.messages} if self.messages else {})
        )

    @classmethod
    def decode(cls, payload: memoryview) -> JournalSnapshot:
        """Read what `encode` wrote."""
        data = orjson.loads(payload)
        return cls(
            data["first"],
            [tuple(row) for row in data["accounts"]],
            data["time"],
            data["adjusted"],
            data.get("messages", ()),
        )


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes that are true once everything before them is on disk.

    `accounts` are those that have changed since the commit before: their sums, not the changes. `released` are entries
    that are settled. `branches` are rows of an entry, the place of a pipeline in its context, and the name of a branch
    of that pipeline which has settled all of the entry; the name is empty where the whole pipeline has.
    """

    entries: range
    """Number of entries before it in the same write."""
    accounts: Sequence[Account] = ()
    released: Sequence[int] = ()
    branches: Sequence[tuple[int, int, str]] = field(default=())
    exporters: Sequence[ExporterRow] = field(default=())
    """The sums of all exporters, about once a second."""
    messages: Sequence[MessageRow] = field(default=())
    """The messages of its entries that have one."""

    def encode(self) -> bytes:
        """Return it as JSON with its length before it and the released entries (u64) behind it."""
        data: dict[str, object] = {"first": self.entries.start, "end": self.entries.stop}
        if self.accounts:
            data["accounts"] = self.accounts
        if self.branches:
            data["branches"] = self.branches
        if self.exporters:
            data["exporters"] = self.exporters
        if self.messages:
            data["messages"] = self.messages
        text = orjson.dumps(data)
        return _LENGTH.pack(len(text)) + text + array("Q", self.released).tobytes()

    @classmethod
    def decode(cls, payload: memoryview) -> Commit:
        """Read what `encode` wrote."""
        end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
        data = orjson.loads(payload[_LENGTH.size : end])
        released = array("Q", bytes(payload[end:]))
        return cls(
            range(data["first"], data["end"]),
            [tuple(row) for row in data.get("accounts", ())],
            released,
            [tuple(row) for row in data.get("branches", ())],
            [tuple(row) for row in data.get("exporters", ())],
            data.get("messages", ()),
        )


@dataclass(slots=True)
class JournalRecord:
    """One record that was read, with its offset."""

    offset: int
    kind: RecordKind
    payload: memoryview
    seq: int = 0
    items: int = 0
    signal: Signal = Signal.TRACES
    context: int = 0

    @property
    def end(self) -> int:
        """Offset of the next record."""
        return self.offset + HEADER_BYTES + len(self.payload)

    def moved_from(self) -> int:
        """Return the number that a `MOVED` entry had before."""
        return int(_SEQ.unpack_from(self.payload)[0])

    def body(self) -> bytes:
        """Return the body of an entry."""
        return bytes(self.payload[_SEQ.size :] if self.kind is RecordKind.MOVED else self.payload)


@dataclass(frozen=True, slots=True)
class JournalDamage:
    """A range of bytes that is not a valid record."""

    offset: int
    length: int


def entry(marker: bytes, seq: int, signal: Signal, context: int, items: int, body: bytes) -> list[bytes]:  # noqa: PLR0913, PLR0917 - the columns of a record
    """Return an entry's record in parts, for `writev`: the body is not copied."""
    head = _HEAD.pack(marker, RecordKind.ENTRY, _NUMBERS[signal], context, len(body), items, seq)
    return [head + _CRC.pack(crc32(body, crc32(head))), body]


def moved(marker: bytes, seq: int, context: int, old: JournalRecord) -> list[bytes]:
    """Return the record of an entry that is copied to another segment."""
    payload = _SEQ.pack(old.seq) + old.body()
    head = _HEAD.pack(marker, RecordKind.MOVED, _NUMBERS[old.signal], context, len(payload), old.items, seq)
    return [head + _CRC.pack(crc32(payload, crc32(head))), payload]


def other(marker: bytes, kind: RecordKind, payload: bytes, context: int = 0) -> list[bytes]:
    """Return a record of any other kind."""
    head = _HEAD.pack(marker, kind, 0, context, len(payload), 0, 0)
    return [head + _CRC.pack(crc32(payload, crc32(head))), payload]


def scan(fd: int, marker: bytes, size: int, offset: int = 0) -> Iterator[JournalRecord | JournalDamage]:
    """Yield the records of an open file of `size` bytes, and the damage between them, a window at a time."""
    window = WINDOW
    while offset < size:
        data = files.read_at(fd, min(window, size - offset), offset)
        if not data:
            yield JournalDamage(offset, size - offset)
            return
        last = offset + len(data) >= size
        used = 0
        for found in read(data, marker):
            if isinstance(found, JournalDamage):
                if found.offset + found.length == len(data) and not last:
                    break  # perhaps a record that continues after the window
                used = found.offset + found.length
                yield JournalDamage(offset + found.offset, found.length)
            else:
                used = found.end
                found.offset += offset
                yield found
        offset += used
        window = WINDOW if used else 2 * window


def read(data: bytes, marker: bytes) -> Iterator[JournalRecord | JournalDamage]:
    """Yield the records in `data`, and the damage between them.

    A record that is cut off at the end is damage, too; the caller decides whether it is an unfinished last write.
    """
    view = memoryview(data)
    for record, begin, end in walk(data, marker, 0, lambda at: read_one(view, marker, at)):
        yield record if record is not None else JournalDamage(begin, end - begin)


def read_one(data: memoryview, marker: bytes, offset: int) -> JournalRecord | None:
    """Return the record at `offset`, or `None` if there is no complete and valid one."""
    start = offset + HEADER_BYTES
    if start > len(data):
        return None
    found, kind, signal, context, length, items, seq = _HEAD.unpack_from(data, offset)
    if found != marker or start + length > len(data):
        return None
    payload = data[start : start + length]
    (crc,) = _CRC.unpack_from(data, offset + _HEAD.size)
    if crc32(payload, crc32(data[offset : offset + _HEAD.size])) != crc:
        return None
    try:
        return JournalRecord(offset, RecordKind(kind), payload, seq, items, _SIGNALS[signal], context)
    except (ValueError, IndexError):
        return None
