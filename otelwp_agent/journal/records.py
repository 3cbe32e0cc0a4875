"""Encode and decode the records of the journal. No I/O.

A segment is a sequence of records, each with a header and a payload::

    marker  8 bytes   random, the same throughout one segment and part of its file's name
    kind    u8        see `RecordKind`; plus `SEALED` if the payload is encrypted
    signal  u8        of an entry; else 0
    context u16       of an entry and of a context: which one, within the segment
    length  u32       bytes of the payload
    items   u32       of an entry; else 0
    seq     u64       of an entry; else 0
    crc     u32       CRC-32 of the header before it and of the payload

The payload of an encrypted record is AES-256-GCM, with the record's offset as nonce and the header before the CRC as
associated data (`at_rest.cipher`). A record of the kind `KEY`, which is not encrypted, has the data key.

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

    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.sealing.message_memory import MessageRow

MARKER_BYTES = 8
_HEAD = struct.Struct("<8sBBHIIQ")
_CRC = struct.Struct("<I")
_SEQ = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _HEAD.size + _CRC.size
MAX_CONTEXTS = 0xFFFF
"""Largest number of contexts in one segment."""
SEALED = 0x80
"""Bit of the kind of an encrypted record."""
KEYS_WINDOW = 1 << 16
"""Bytes at the beginning of a segment that contain its keys."""
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
    MESSAGE = 6
    """The message that the next entry is the request of (`MessageRow`, as JSON). If the entry is missing, it means
    nothing: its request was not accepted."""
    KEY = 7
    """The encrypted data key of the segment (`at_rest.slots`). The other records of the segment are encrypted."""


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

    def encode(self) -> bytes:
        """Return it as JSON with its length before it and the released entries (u64) behind it."""
        data: dict[str, object] = {"first": self.entries.start, "end": self.entries.stop}
        if self.accounts:
            data["accounts"] = self.accounts
        if self.branches:
            data["branches"] = self.branches
        if self.exporters:
            data["exporters"] = self.exporters
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
    overhead: int = 0
    """Bytes that encryption has added to the payload in the file."""

    @property
    def size(self) -> int:
        """Bytes in the file, header included."""
        return HEADER_BYTES + len(self.payload) + self.overhead

    @property
    def end(self) -> int:
        """Offset of the next record."""
        return self.offset + self.size

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


def entry(  # noqa: PLR0913, PLR0917 - the columns of a record
    marker: bytes,
    seq: int,
    signal: Signal,
    context: int,
    items: int,
    body: bytes,
    cipher: FileCipher | None = None,
    offset: int = 0,
) -> list[bytes]:
    """Return an entry's record in parts, for `writev`: the body is not copied.

    With `cipher`, the payload is encrypted for this `offset` of the segment; so it is in the functions below.
    """
    return _parts(marker, RecordKind.ENTRY, _NUMBERS[signal], context, items, seq, body, cipher, offset)


def moved(  # noqa: PLR0913, PLR0917 - the same
    marker: bytes, seq: int, context: int, old: JournalRecord, cipher: FileCipher | None = None, offset: int = 0
) -> list[bytes]:
    """Return the record of an entry that is copied to another segment."""
    payload = _SEQ.pack(old.seq) + old.body()
    number = _NUMBERS[old.signal]
    return _parts(marker, RecordKind.MOVED, number, context, old.items, seq, payload, cipher, offset)


def other(  # noqa: PLR0913, PLR0917 - the same
    marker: bytes,
    kind: RecordKind,
    payload: bytes,
    context: int = 0,
    cipher: FileCipher | None = None,
    offset: int = 0,
) -> list[bytes]:
    """Return a record of any other kind."""
    return _parts(marker, kind, 0, context, 0, 0, payload, cipher, offset)


def _parts(  # noqa: PLR0913, PLR0917 - the same
    marker: bytes,
    kind: int,
    signal: int,
    context: int,
    items: int,
    seq: int,
    payload: bytes,
    cipher: FileCipher | None,
    offset: int,
) -> list[bytes]:
    if cipher is None:
        head = _HEAD.pack(marker, kind, signal, context, len(payload), items, seq)
    else:
        head = _HEAD.pack(marker, kind | SEALED, signal, context, len(payload) + cipher.overhead, items, seq)
        payload = cipher.encrypt(offset, payload, head)
    return [head + _CRC.pack(crc32(payload, crc32(head))), payload]


def scan(
    fd: int, marker: bytes, size: int, offset: int = 0, cipher: FileCipher | None = None
) -> Iterator[JournalRecord | JournalDamage]:
    """Yield the records of an open file of `size` bytes, and the damage between them, a window at a time.

    Encrypted records count as damage without `cipher`, and all others with it, except keys.
    """
    window = WINDOW
    while offset < size:
        data = files.read_at(fd, min(window, size - offset), offset)
        if not data:
            yield JournalDamage(offset, size - offset)
            return
        last = offset + len(data) >= size
        used = 0
        for found in read(data, marker, cipher, offset):
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


def read(
    data: bytes, marker: bytes, cipher: FileCipher | None = None, base: int = 0
) -> Iterator[JournalRecord | JournalDamage]:
    """Yield the records in `data`, which begins at offset `base` of its file, and the damage between them.

    Offsets are those in `data`. A record that is cut off at the end is damage, too; the caller decides whether it is an
    unfinished last write.
    """
    view = memoryview(data)
    for record, begin, end in walk(data, marker, 0, lambda at: read_one(view, marker, at, cipher, base)):
        yield record if record is not None else JournalDamage(begin, end - begin)


def read_one(
    data: memoryview, marker: bytes, offset: int, cipher: FileCipher | None = None, base: int = 0
) -> JournalRecord | None:
    """Return the record at `offset`, or `None` if there is no complete and valid one.

    `data` begins at the offset `base` of its file.
    """
    start = offset + HEADER_BYTES
    if start > len(data):
        return None
    found, kind, signal, context, length, items, seq = _HEAD.unpack_from(data, offset)
    if found != marker or start + length > len(data):
        return None
    payload, head = data[start : start + length], data[offset : offset + _HEAD.size]
    (crc,) = _CRC.unpack_from(data, offset + _HEAD.size)
    if crc32(payload, crc32(head)) != crc:
        return None
    overhead = 0
    if kind & SEALED:
        plain = cipher.decrypt(base + offset, payload, bytes(head)) if cipher is not None else None
        kind, payload = (kind & ~SEALED, memoryview(plain)) if plain is not None else (0, payload)
        overhead = length - len(payload)
    elif cipher is not None and kind != RecordKind.KEY:
        kind = 0  # it is not authenticated
    try:
        return JournalRecord(offset, RecordKind(kind), payload, seq, items, _SIGNALS[signal], context, overhead)
    except (ValueError, IndexError):
        return None
