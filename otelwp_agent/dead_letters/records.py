"""The records of a dead-letter file: bytes on disk, and what they mean. No I/O.

The file begins with `MAGIC` and three copies of its marker, 8 random bytes. After them stand records::

    marker  8 bytes
    header  u32       bytes of the header
    body    u32       bytes of the body
    crc     u32       CRC-32 of the two lengths, the header and the body
    header            JSON: a letter, `{"removed": [ids]}`, or `{"key": id}` with `data_key`
    body              of a letter: the request as it was refused, in wire form

Of an encrypted letter, the body is AES-256-GCM of the length of the backend's message (u32), the message, and the
request. `sealed` in its header has the id of the data key, in a record before it, and the nonce. The other fields are
in clear, so that letters can be listed and removed without a key, and are authenticated (`associated_data`).

All numbers are little-endian. Damaged parts are skipped: the next record is where the marker stands again and the
checksum holds. Senders do not know the marker, so the body of a request cannot imitate a record.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import orjson
from isal.isal_zlib import crc32

from otelwp_agent.journal.resync import walk
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator

    from otelwp_agent.model.batch import Share

MAGIC = b"otelwpDL"
MARKER_BYTES = 8
PREFIX_BYTES = len(MAGIC) + 3 * MARKER_BYTES
LONGEST_ERROR = 1000
"""Maximum number of characters kept of the backend's message."""

_LENGTHS = struct.Struct("<II")
_CRC = struct.Struct("<I")
_HEAD_BYTES = MARKER_BYTES + _LENGTHS.size + _CRC.size


class Fate(Enum):
    """Outcome of an attempt to keep a refused batch as a dead letter."""

    KEPT = auto()
    LOST = auto()
    """No capacity: the batch is lost."""
    FAILED = auto()
    """The file cannot be written now; a later attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A refused batch without its body, which has `size` bytes. `time` is seconds since 1970."""

    id: str
    time: float
    exporter: str
    signal: Signal
    items: int
    size: int
    reason: str
    error: str
    receiver: str = ""
    transport: str = ""
    tenant: str = ""
    encodings: tuple[str, ...] = ()
    sealed: tuple[str, int] | None = None
    """Of an encrypted letter: the id of its data key, and the nonce. Then `error` is encrypted with the body."""
    stored: int = 0
    """Bytes of the encrypted body in the file."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        names = self.__slots__ if self.sealed is not None else self.__slots__[:-2]
        return {name: getattr(self, name) for name in names} | {"signal": self.signal.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Letter:
        """Read what `to_json` wrote."""
        sealed = tuple(data["sealed"]) if data.get("sealed") else None
        return cls(
            **{**data, "signal": Signal(data["signal"]), "encodings": tuple(data["encodings"]), "sealed": sealed}
        )

    def batch(self, body: bytes, shares: tuple[Share, ...]) -> Batch:
        """Return the batch that was refused. The client's headers are not kept: they may hold keys."""
        origin = Origin(self.receiver, self.transport, self.tenant)
        return Batch(self.signal, body, self.items, origin, shares, self.encodings)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read: a letter, or the ids of letters before it that are gone."""

    offset: int
    end: int
    body: int
    """Offset of the body in the file."""
    letter: Letter | None
    removed: tuple[str, ...] = ()
    key: tuple[str, bytes] | None = None
    """A data key: its id, and the key encrypted (`at_rest.slots`)."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record."""

    offset: int
    end: int


def new_prefix() -> bytes:
    """Return the beginning of a new file."""
    return MAGIC + 3 * os.urandom(MARKER_BYTES)


def marker_of(prefix: bytes) -> bytes | None:
    """Return the marker at the beginning of a file; `None` if it is not a dead-letter file. One byte may be damaged."""
    if len(prefix) < PREFIX_BYTES or sum(a != b for a, b in zip(prefix, MAGIC, strict=False)) > 1:
        return None
    copies = [prefix[at : at + MARKER_BYTES] for at in range(len(MAGIC), PREFIX_BYTES, MARKER_BYTES)]
    return bytes(sorted(three)[1] for three in zip(*copies, strict=True))


def encode(marker: bytes, letter: Letter, body: bytes) -> bytes:
    """Return the record of a letter."""
    return _encode(marker, _header(letter), body)


def record_bytes(letter: Letter) -> int:
    """Return the bytes of a letter's record."""
    return _HEAD_BYTES + len(_header(letter)) + (letter.stored or letter.size)


def _header(letter: Letter) -> bytes:
    return orjson.dumps(letter.to_json() | ({"error": ""} if letter.sealed is not None else {}))


def encode_key(marker: bytes, key: str, wrapped: bytes) -> bytes:
    """Return the record with an encrypted data key, twice: damage to the only one would cost all its letters."""
    return 2 * _encode(marker, orjson.dumps({"key": key, "data_key": wrapped.decode()}), b"")


def associated_data(letter: Letter) -> bytes:
    """Return the fields of an encrypted letter that are authenticated with its body."""
    return orjson.dumps(
        [
            letter.id,
            letter.time,
            letter.exporter,
            letter.signal.value,
            letter.items,
            letter.size,
            letter.reason,
            letter.receiver,
            letter.transport,
            letter.tenant,
            letter.encodings,
            letter.sealed,
        ]
    )


def encode_removal(marker: bytes, ids: Iterable[str]) -> bytes:
    """Return the record that says which letters before it are gone."""
    return _encode(marker, orjson.dumps({"removed": list(ids)}), b"")


def read(data: bytes | mmap.mmap, marker: bytes, offset: int = PREFIX_BYTES) -> Iterator[Record | Damage]:
    """Yield the records in `data` from `offset` on, and the damage between them."""
    for record, begin, end in walk(data, marker, offset, lambda at: _read_one(data, marker, at)):
        yield record if record is not None else Damage(begin, end)


def _encode(marker: bytes, header: bytes, body: bytes) -> bytes:
    lengths = _LENGTHS.pack(len(header), len(body))
    crc = crc32(body, crc32(header, crc32(lengths)))
    return b"".join((marker, lengths, _CRC.pack(crc), header, body))


def _read_one(data: bytes | mmap.mmap, marker: bytes, offset: int) -> Record | None:
    """Return the record at `offset`, or `None` if there is none that is whole and sound."""
    start = offset + _HEAD_BYTES
    if start > len(data) or data[offset : offset + MARKER_BYTES] != marker:
        return None
    lengths = data[offset + MARKER_BYTES : offset + MARKER_BYTES + _LENGTHS.size]
    header_bytes, body_bytes = _LENGTHS.unpack(lengths)
    body = start + header_bytes
    end = body + body_bytes
    if end > len(data):
        return None
    header = data[start:body]
    (crc,) = _CRC.unpack_from(data, start - _CRC.size)
    with memoryview(data) as view, view[body:end] as bytes_of_body:
        if crc32(bytes_of_body, crc32(header, crc32(lengths))) != crc:
            return None
    try:
        found = orjson.loads(header)
        removed = tuple(found.get("removed", ()))
        key = (str(found["key"]), str(found["data_key"]).encode()) if "key" in found else None
        letter = Letter.from_json(found) if key is None and "removed" not in found else None
        return Record(offset, end, body, letter, removed, key)
    except (ValueError, TypeError, KeyError, AttributeError):  # written by another version: treated as damaged
        return None
