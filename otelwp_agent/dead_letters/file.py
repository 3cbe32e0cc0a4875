"""The dead-letter file: appended to, read, cleaned.

One process at a time writes it, and holds a lock (`flock`) as long as it has the file open; other
processes may read it. A letter is removed by a record that lists it; its bytes disappear when the file is rewritten.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelwp_agent.dead_letters import records
from otelwp_agent.dead_letters.sealing import LetterOpener, LetterSealer
from otelwp_agent.errors import AgentError
from otelwp_agent.fair_share import DEFAULT_SHARE, TenantUse
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.dead_letters.records import Letter

_TRIES = 10
"""Times that a file is opened again because another process replaced it meanwhile."""


class LockedError(AgentError):
    """Another process writes the file."""


@dataclass(slots=True)
class Reading:
    """Content of a file: its letters in the order in which they were written, and the damage."""

    letters: list[Letter] = field(default_factory=list)
    damaged: int = 0
    """Number of damaged parts that were skipped."""
    damaged_bytes: int = 0
    dead_bytes: int = 0
    """Bytes that rewriting the file would give back."""
    key_bytes: int = 0
    """Bytes of the data keys that its letters need."""


class LetterFile:
    """The file at `path`, locked from `open` to `close`. `max_size` is its limit in bytes.

    Tenants share it (`fair_share`): `max_tenant_share` is the most that one tenant alone may use. With `keys`, new
    letters are encrypted.
    """

    def __init__(
        self,
        path: Path,
        max_size: int,
        max_tenant_share: float = DEFAULT_SHARE,
        keys: StorageKeys | None = None,
    ) -> None:
        """Open nothing."""
        self.path = path
        self.max_size = max_size
        self.size = 0
        self.dead_bytes = 0
        """Bytes of letters that are gone, and of damage."""
        self._share = max_tenant_share
        self._keys = keys
        self._sealer: LetterSealer | None = None
        """Encrypts letters; its data key is in the file."""
        self._key_bytes = 0
        """Bytes of the data keys that letters need."""
        self._use = TenantUse()
        self._fd = -1
        self._marker = b""
        self._unsynced = False
        """Whether the last attempt to force the file to disk failed."""

    def open(self) -> Reading:
        """Open the file, making it if it is missing; return what it holds.

        Raises `LockedError` if another process has it, `AgentError` if it is another kind of file, `OSError`.
        """
        self._open_locked()
        try:
            self.size = os.fstat(self._fd).st_size
            if self.size < records.PREFIX_BYTES:  # new, or its first write was torn
                self._begin()
            self._marker = self._read_marker()
            reading = read_letters(self.path)
        except BaseException:
            self.close()
            raise
        self._sealer = None
        self.dead_bytes, self._key_bytes = reading.dead_bytes, reading.key_bytes
        self._use = TenantUse()
        for letter in reading.letters:
            self._use.add(letter.tenant, records.record_bytes(letter))
        return reading

    def close(self) -> None:
        """Close the file, and let others write it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            files.close(fd)

    @property
    def is_open(self) -> bool:
        """Whether it can be written."""
        return self._fd >= 0

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one at the path: another process may have removed it."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            return False

    def exceeds_share(self, letter: Letter) -> bool:
        """Return whether the letter's tenant would use more than its share of the file."""
        if not letter.tenant or self._share >= 1:
            return False
        size, total = records.record_bytes(letter), self.living_bytes
        most = self._use.excess(letter.tenant, size, capacity=self.max_size, share=self._share, total=total)
        return most is not None

    def append(self, letter: Letter, body: bytes) -> bool:
        """Append a letter; return False if the file is full. Raises `OSError`."""
        sealer = self._sealer
        if self._keys is not None:
            sealer = sealer or LetterSealer(self._keys)
            letter, body = sealer.seal(letter, body)
        key, record = self._key_record(sealer), records.encode(self._marker, letter, body)
        if self.size + len(key) + len(record) > self.max_size:
            if self.size - self.dead_bytes + len(key) + len(record) > self.max_size:
                return False
            self.rewrite()
            key, record = self._key_record(sealer), records.encode(self._marker, letter, body)
        self._write(key + record)
        self._sealer = sealer
        self._key_bytes += len(key)
        self._use.add(letter.tenant, len(record))
        return True

    def _key_record(self, sealer: LetterSealer | None) -> bytes:
        """Return the record with the data key of `sealer`, if the file does not have it."""
        if sealer is None or sealer is self._sealer:
            return b""
        return records.encode_key(self._marker, sealer.key, sealer.wrapped)

    def replaced(self, letter: Letter) -> None:
        """Count a letter as gone because it was written again, with its id."""
        self.dead_bytes += self._release(letter)

    def sync(self) -> None:
        """Force what was written to disk; raises `OSError`, and the next call then writes the file again.

        After a failed fsync the kernel may have marked pages as clean that never reached the disk.
        """
        if self._unsynced:
            self.rewrite()
            return
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._unsynced = True
            raise

    def remove(self, letters: Collection[Letter]) -> None:
        """Have these letters gone. Raises `OSError`."""
        record = records.encode_removal(self._marker, [letter.id for letter in letters])
        self._write(record)
        self.dead_bytes += len(record) + sum(map(self._release, letters))

    def _release(self, letter: Letter) -> int:
        """Subtract the bytes of a removed letter from its tenant's use; return them."""
        size = records.record_bytes(letter)
        self._use.add(letter.tenant, -size)
        return size

    @property
    def living_bytes(self) -> int:
        """Bytes of the letters that are there."""
        return self.size - self.dead_bytes - self._key_bytes - records.PREFIX_BYTES

    def rewrite(self, drop: Callable[[Letter], bool] = lambda _letter: False) -> list[Letter]:
        """Rewrite the file without removed, damaged and unwanted letters; return the letters that were dropped.

        The old file stays until the new one is on disk. Raises `OSError`.
        """
        draft = self.path.with_name(f"{self.path.name}.new")
        fd = files.open_file(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            marker, size, key_bytes, dropped, use = self._copy(fd, drop)
            os.fsync(fd)
            os.replace(draft, self.path)  # noqa: PTH105 - beside the other functions of `os`
        except BaseException:
            files.close(fd)
            with contextlib.suppress(OSError):
                files.remove(draft)
            raise
        files.close(self._fd)
        self._fd, self._marker, self.size, self.dead_bytes = fd, marker, size, 0
        self._key_bytes = key_bytes
        self._sealer = None  # the next letter gets another data key
        self._unsynced = False
        self._use = use
        files.sync_directory(self.path.parent)
        return dropped

    def _copy(self, fd: int, drop: Callable[[Letter], bool]) -> tuple[bytes, int, int, list[Letter], TenantUse]:
        """Write what stays to `fd`.

        Return the new file's marker and size, the bytes of its data keys, the letters that were dropped, and what
        tenants use of the file.
        """
        prefix = records.new_prefix()
        marker = records.marker_of(prefix) or b""
        size, key_bytes, dropped, use = len(prefix), 0, [], TenantUse()
        written: set[str] = set()
        files.write_all(fd, prefix)
        with _mapped(self.path) as data:
            living, keys = _contents(data, self._marker)
            for record in living.values():
                assert record.letter is not None  # noqa: S101 - only letters live
                if drop(record.letter):
                    dropped.append(record.letter)
                    continue
                key = record.letter.sealed[0] if record.letter.sealed is not None else ""
                if key in keys and key not in written:
                    copy = records.encode_key(marker, key, keys[key])
                    files.write_all(fd, copy)
                    size, key_bytes = size + len(copy), key_bytes + len(copy)
                    written.add(key)
                copy = records.encode(marker, record.letter, data[record.body : record.end])
                files.write_all(fd, copy)
                size += len(copy)
                use.add(record.letter.tenant, len(copy))
        return marker, size, key_bytes, dropped, use

    def _open_locked(self) -> None:
        for _ in range(_TRIES):
            self._fd = files.open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                files.make_private(self._fd)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.is_in_place:
                    return
            except OSError as error:
                self.close()
                if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                    raise LockedError(f"{self.path}: another process writes this file: an agent that runs?") from error
                raise
            self.close()  # it was rewritten between the two steps
        raise LockedError(f"{self.path}: another process keeps rewriting this file")

    def _begin(self) -> None:
        os.ftruncate(self._fd, 0)
        prefix = records.new_prefix()
        files.write_all(self._fd, prefix)
        os.fsync(self._fd)
        files.sync_directory(self.path.parent)
        self.size = len(prefix)

    def _read_marker(self) -> bytes:
        return _marker(files.read_at(self._fd, records.PREFIX_BYTES, 0), self.path)

    def _write(self, record: bytes) -> None:
        try:
            files.write_all(self._fd, record)
        except OSError:
            # A part of it may be in the file. It is not truncated: a reader may have mapped the pages of the file.
            size = os.fstat(self._fd).st_size
            self.dead_bytes += size - self.size
            self.size = size
            raise
        self.size += len(record)


def read_letters(path: Path) -> Reading:
    """Return what the file at `path` holds. Raises `AgentError` if it is not a dead-letter file, `OSError`."""
    reading = Reading()
    with _mapped(path) as data:
        if not len(data):
            return reading
        marker = _marker(data[: records.PREFIX_BYTES], path)
        living, keys = _contents(data, marker, reading)
        reading.letters = [record.letter for record in living.values() if record.letter is not None]
        alive = sum(record.end - record.offset for record in living.values())
        used = {letter.sealed[0] for letter in reading.letters if letter.sealed is not None}
        reading.key_bytes = sum(len(records.encode_key(marker, key, keys[key])) for key in used if key in keys)
        reading.dead_bytes = max(0, len(data) - records.PREFIX_BYTES - alive - reading.key_bytes)
    return reading


def read_bodies(path: Path, ids: Collection[str], keys: StorageKeys | None = None) -> Iterator[tuple[Letter, bytes]]:
    """Yield the letters with these ids, and their bodies, in the order in which they were written.

    Encrypted ones are opened with `keys`; raises `FileKeyError` if none opens them, `SealedDataError` if one was
    changed.
    """
    with _mapped(path) as data:
        if not len(data):
            return
        living, data_keys = _contents(data, _marker(data[: records.PREFIX_BYTES], path))
        opener = LetterOpener(data_keys, keys)
        for identifier, record in living.items():
            if identifier in ids and record.letter is not None:
                yield opener.open(record.letter, data[record.body : record.end])


def new_id(now: float, before: str) -> str:
    """Return an id greater than `before`: 14 hexadecimal digits, milliseconds since 1970 and a count."""
    least = int(before, 16) + 1 if before else 0
    return f"{max(int(now * 1000) << 12, least):014x}"


def _contents(
    data: bytes | mmap.mmap, marker: bytes, reading: Reading | None = None
) -> tuple[dict[str, records.Record], dict[str, bytes]]:
    """Return the records of the letters that are not gone, and the encrypted data keys, by id.

    Of a letter that was written again, the last record counts.
    """
    living: dict[str, records.Record] = {}
    keys: dict[str, bytes] = {}
    for record in records.read(data, marker):
        if isinstance(record, records.Damage):
            if reading is not None:
                reading.damaged += 1
                reading.damaged_bytes += record.end - record.offset
        elif record.letter is not None:
            living.pop(record.letter.id, None)
            living[record.letter.id] = record
        elif record.key is not None:
            keys[record.key[0]] = record.key[1]
        else:
            for identifier in record.removed:
                living.pop(identifier, None)
    return living, keys


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Map a file into memory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not found.st_size:
            yield b""
            return
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            yield data
    finally:
        files.close(fd)


def _marker(prefix: bytes, path: Path) -> bytes:
    marker = records.marker_of(prefix)
    if marker is None:
        raise AgentError(f"{path}: this is not a dead-letter file")
    return marker
