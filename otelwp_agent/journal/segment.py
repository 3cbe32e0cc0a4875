"""One file of the journal: records are appended to it, and it is deleted when all of its entries are settled."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from array import array
from collections import Counter
from typing import TYPE_CHECKING

from otelwp_agent.at_rest.errors import SealedDataError
from otelwp_agent.at_rest.file_keys import open_file_key
from otelwp_agent.journal import records
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.records import JournalDamage, JournalRecord, RequestContext

_NAME = re.compile(r"(\d{10})-([0-9a-f]{16})\.journal")
_MAX_PARTS = 1024
"""Buffers that one `writev` accepts (IOV_MAX on Linux)."""

WAITING = 0
"""State of an entry that waits to be fed to its pipelines; more waiting states: `Segment.states`."""
RUNNING = 1
RELEASED = 2
FIRST_PARTLY_DONE = 3


class DisplacedError(OSError):
    """A segment is no longer at its path: it or its directory was removed or replaced."""

    def __init__(self, path: Path) -> None:
        """Create the error for this path."""
        super().__init__(errno.ESTALE, f"{path} was removed or replaced while the agent runs")


def is_segment(name: str) -> bool:
    """Return whether a file's name is a segment's."""
    return _NAME.fullmatch(name) is not None


class Segment:
    """A segment: an open file, and the state of its entries.

    `states` has a byte for each entry, which are numbered without a gap from `first`: `WAITING`, `RUNNING`, `RELEASED`,
    or, from `FIRST_PARTLY_DONE` on, waiting for some branches only (`progress.Progress`).
    """

    __slots__ = (
        "_identity", "_name", "cipher", "context_numbers", "contexts", "data_key", "displaced", "fd", "first", "items",
        "kept", "live", "live_bytes", "marker", "number", "offsets", "path", "size", "sizes", "states", "waiting_for",
    )  # fmt: skip

    def __init__(self, path: Path, number: int, marker: bytes, fd: int, first: int) -> None:
        """Use the file at `path`, open as `fd`, whose first entry has number `first`."""
        self.path = path
        self.number = number
        self.marker = marker
        self.fd = fd
        self.first = first
        self.size = 0
        self.cipher: FileCipher | None = None
        """Encrypts and decrypts its records; `None` if they are not encrypted."""
        self.data_key = b""
        """The encrypted key of `cipher` (`at_rest.slots`)."""
        self.displaced = False
        """Whether a check has found that the file is no longer at its path."""
        self._name = str(path)
        self.states = bytearray()
        self.offsets = array("I")
        """Offset of each entry."""
        self.context_numbers = array("H")
        self.items = array("I")
        self.sizes = array("I")
        """Bytes of each entry, header included."""
        self.kept = 0
        """Number of entries whose release is not on disk."""
        self.live = 0
        """Number of entries that are not released."""
        self.live_bytes = 0
        """Their bytes, headers included."""
        self.waiting_for: Counter[tuple[int, int]] = Counter()
        """Number of waiting entries, by context and state."""
        self.contexts: dict[int, RequestContext] = {}

    @classmethod
    def create(cls, directory: Path, number: int, first: int, keys: StorageKeys | None = None) -> Segment:
        """Create an empty file, whose records are encrypted if there are `keys`; raises `OSError`."""
        marker = os.urandom(records.MARKER_BYTES)
        path = directory / f"{number:010d}-{marker.hex()}.journal"
        fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        segment = cls(path, number, marker, fd, first)
        if keys is not None:
            segment.cipher, segment.data_key = keys.new_cipher(marker)
        try:
            segment._identify()
        except OSError:
            with contextlib.suppress(OSError):
                segment.delete()
            raise
        return segment

    @classmethod
    def open(cls, path: Path, *, write: bool = True, keys: StorageKeys | None = None) -> Segment | None:
        """Open an existing file; return `None` if its name is not a segment's.

        Raises `OSError`, `FileKeyError` if it is encrypted for none of `keys`, `SealedDataError` if its data key was
        changed.
        """
        found = _NAME.fullmatch(path.name)
        if found is None:
            return None
        fd = files.open_file(path, os.O_RDWR) if write else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        segment = cls(path, int(found[1]), bytes.fromhex(found[2]), fd, 0)
        try:
            segment.size = segment._identify().st_size
            segment._unlock(keys)
        except BaseException:
            segment.close()
            raise
        return segment

    def _unlock(self, keys: StorageKeys | None) -> None:
        """Open the data key, if the file has one. If all copies of it are damaged, all records are damage."""
        failure: SealedDataError | None = None
        for found in records.read(files.read_at(self.fd, records.KEYS_WINDOW, 0), self.marker):
            if isinstance(found, records.JournalDamage):
                continue  # without a cipher, so are encrypted records
            if found.kind is not records.RecordKind.KEY:
                return
            payload = bytes(found.payload)
            try:
                self.cipher = open_file_key(keys, payload, self.marker, self.path.name)
            except SealedDataError as error:
                failure = error  # the other copy may be unchanged
            else:
                self.data_key = payload
                return
        if failure is not None:
            raise failure

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is the one at the path. Raises `OSError` if the path cannot be checked."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 - runs once per commit; a `Path` would double its cost
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _check_place(self) -> None:
        """Raise `DisplacedError` if the file was removed or replaced, `OSError` if that cannot be checked."""
        if not self.is_in_place:
            raise DisplacedError(self.path)

    def _identify(self) -> os.stat_result:
        found = os.fstat(self.fd)
        self._identity = (found.st_dev, found.st_ino)
        return found

    @property
    def waiting(self) -> int:
        """Number of waiting entries."""
        return self.waiting_for.total()

    @property
    def end(self) -> int:
        """The number that the next entry will have."""
        return self.first + len(self.states)

    def write(self, parts: list[bytes], *, sync: bool) -> int:
        """Append to the file, with an `fsync` if `sync`; return the number of bytes.

        Raises `OSError` with the end as it was, `DisplacedError` if the file is no longer at its path.
        """
        offset = self.size
        try:
            for start in range(0, len(parts), _MAX_PARTS):
                offset += files.write_parts(self.fd, parts[start : start + _MAX_PARTS], offset)
            if sync:
                os.fdatasync(self.fd)
            self._check_place()  # before anything is acknowledged: the file may have been removed meanwhile
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise
        return offset - self.size

    def cut(self, size: int) -> None:
        """Remove `size` bytes from the end; raises `OSError`."""
        os.ftruncate(self.fd, self.size - size)
        self.size -= size

    def scan(self) -> Iterator[JournalRecord | JournalDamage]:
        """Yield the records of the file, and the damage between them."""
        for found in records.scan(self.fd, self.marker, self.size, 0, self.cipher):
            if isinstance(found, records.JournalDamage) or found.kind is not records.RecordKind.KEY:
                yield found

    @property
    def is_writable(self) -> bool:
        """Whether its end can be encrypted: not if something was encrypted for it and not written."""
        return self.cipher is None or self.cipher.may_encrypt(self.size)

    def entry(self, index: int) -> JournalRecord | None:
        """Read one entry; return `None` if it is damaged. Raises `OSError` if the disk cannot be read."""
        offset = self.offsets[index]
        data = memoryview(files.read_at(self.fd, self._room(index), offset))
        record = records.read_one(data, self.marker, 0, self.cipher, offset)
        if record is None or record.seq != self.first + index:
            return None
        record.offset = offset
        return record

    def _room(self, index: int) -> int:
        """Return the bytes from an entry to the next, which include small records between them."""
        following = self.offsets[index + 1] if index + 1 < len(self.offsets) else self.size
        return following - self.offsets[index]

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            files.close(self.fd)
            self.fd = -1

    def delete(self) -> None:
        """Close the file and remove it; raises `OSError`."""
        self.close()
        files.remove(self.path)
