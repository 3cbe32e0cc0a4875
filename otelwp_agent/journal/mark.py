"""The high-water mark of a journal: how far acknowledged entries reach, in a file beside the segments.

A segment that has lost its tail looks like one that ends there. The mark shows the difference. It is written after the
entries themselves are on disk and is not forced to disk itself: it is exact after `kill -9`, and after a power failure
it may be behind the entries but never ahead of them.

The file `mark` has 44 bytes, all numbers little-endian::

    magic   8 bytes   "OTELWPM1"
    marker  8 bytes   of the newest segment
    number  u64       of the newest segment
    next    u64       one more than the number of the last acknowledged entry
    live    u64       entries that were not settled
    crc     u32       CRC-32 of the 40 bytes before it
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal.isal_zlib import crc32

from otelwp_agent.storage import files

if TYPE_CHECKING:
    from pathlib import Path

NAME = "mark"
MAGIC = b"OTELWPM1"
_BODY = struct.Struct("<8s8sQQQ")
_CRC = struct.Struct("<I")
SIZE = _BODY.size + _CRC.size


@dataclass(frozen=True, slots=True)
class Mark:
    """Position of the journal after one commit."""

    marker: bytes
    number: int
    next: int
    live: int

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        body = _BODY.pack(MAGIC, self.marker, self.number, self.next, self.live)
        return body + _CRC.pack(crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> Mark | None:
        """Read what `encode` wrote; return `None` if it is damaged."""
        if len(data) < SIZE or _CRC.unpack_from(data, _BODY.size)[0] != crc32(data[: _BODY.size]):
            return None
        magic, marker, number, following, live = _BODY.unpack_from(data)
        return cls(marker, number, following, live) if magic == MAGIC else None


def read_mark(directory: Path) -> tuple[Mark | None, bool]:
    """Return the mark in `directory`, if there is one, and whether it is damaged. Raises `OSError`."""
    try:
        data = files.read_file(directory / NAME)
    except FileNotFoundError:
        return None, False
    mark = Mark.decode(data)
    return mark, mark is None and bool(data)


class MarkFile:
    """The file, opened when it is first written. One thread at a time uses it."""

    def __init__(self, directory: Path) -> None:
        """Prepare; the first write opens the file."""
        self._path = directory / NAME
        self._fd = -1
        self.failure = ""
        """Why the last write failed; "" if it did not."""

    def write(self, mark: Mark) -> None:
        """Overwrite the mark. A failure is remembered in `failure`: the entries themselves are safe."""
        data = mark.encode()
        try:
            if self._fd < 0:
                self._fd = files.open_file(self._path, os.O_WRONLY | os.O_CREAT)
            files.write_parts(self._fd, [data], 0)
            self.failure = ""
        except OSError as error:
            self.failure = error.strerror or str(error)
            self.close()

    def close(self) -> None:
        """Close the file; the next write opens it again, wherever the directory is then."""
        if self._fd >= 0:
            files.close(self._fd)
            self._fd = -1
