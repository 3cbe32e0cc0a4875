"""Open, write and replace files that hold telemetry.

Files get mode 0600 and directories 0700. In a directory that other users can write, such as /tmp, any of them can
create a symbolic link, a hard link or a FIFO with the name of the agent's file. There, links and files of other users
are refused with an `UnsafePathError` that explains the fix. In other directories symbolic links are followed.

Every function raises `OSError`. All system calls are made as `os.…`, so that a test can make each of them fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_ROOT = 0
"""User and group ids of root, who can change every file anyway."""


class UnsafePathError(OSError):
    """Another user can redirect this path; `strerror` contains the reason and the fix."""

    def __init__(self, message: str) -> None:
        """Use `message` as `strerror`, with the error number `EPERM`."""
        super().__init__(errno.EPERM, message)


def make_directory(path: Path, mode: int = DIRECTORY_MODE) -> None:
    """Create `path` and its missing parents, each with `mode` minus the umask; existing directories stay unchanged."""
    check_path(path)
    missing: list[Path] = []
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow symbolic links
    while not _exists(absolute):
        missing.append(absolute)
        absolute = absolute.parent
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process has just created it
            os.mkdir(directory, mode)  # noqa: PTH102 - tests replace `os.mkdir`
    if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - the same
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def open_file(path: Path, flags: int, mode: int = FILE_MODE) -> int:
    """Open `path` for writing and return the descriptor. A new file gets the permissions `mode`."""
    exposed = check_path(path)
    if not exposed:
        return os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        fd = os.open(path, (flags & ~os.O_TRUNC) | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unsafe(path, "is a symbolic link") from error
        raise
    try:
        _check(path, os.fstat(fd), os.stat(path.parent).st_uid)  # noqa: PTH116 - beside the other functions of `os`
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
    except BaseException:
        close(fd)
        raise
    return fd


def make_private(fd: int) -> None:
    """Remove the permissions of group and others from an open file: an earlier version may have set them."""
    if os.fstat(fd).st_mode & 0o077:
        os.fchmod(fd, FILE_MODE)


def close(fd: int) -> None:
    """Close a descriptor. Errors are ignored: data that must be on disk was synced before."""
    with contextlib.suppress(OSError):
        os.close(fd)


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read `size` bytes at `offset`, fewer only at the end of the file. After a short read, read the rest."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def read_file(path: Path, most: int | None = None) -> bytes:
    """Return the contents of a file, at most its first `most` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_at(fd, os.fstat(fd).st_size if most is None else most, 0)
    finally:
        close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`. After a short write, write the rest."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_parts(fd: int, parts: list[bytes], offset: int) -> int:
    """Write `parts` at `offset`, with one call unless the system writes less; return the number of bytes."""
    total = sum(map(len, parts))
    written = os.pwritev(fd, parts, offset)
    if written < total:
        rest = memoryview(b"".join(parts))
        while written < total:
            written += os.pwrite(fd, rest[written:], offset + written)
    return total


def replace_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace the contents of `path` atomically; with `sync`, also if the power fails."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            make_private(fd)
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            close(fd)
        os.replace(temporary, path)  # noqa: PTH105 - beside the other functions of `os`
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - the same
        raise
    if sync:
        sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - beside the other functions of `os`


def sync_directory(path: Path) -> None:
    """Sync a directory, so that new and removed names are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        close(fd)


def check_path(path: Path) -> bool:
    """Raise `UnsafePathError` if another user can redirect `path`.

    Returns whether other users can write in the directory of `path`.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow symbolic links
    exposed = False
    owner = _ROOT
    for part in [*reversed(absolute.parents), absolute]:
        try:
            found = os.lstat(part)
            if exposed:
                _check(part, found, owner)
            elif stat.S_ISLNK(found.st_mode):
                found = os.stat(part)  # noqa: PTH116 - beside lstat; raises if links form a circle
                check_path(part.parent / os.readlink(part))  # noqa: PTH115 - the same
        except FileNotFoundError:
            break
        if part != absolute:
            exposed, owner = _others_write(found), found.st_uid
    return exposed


def _check(path: Path, found: os.stat_result, owner: int) -> None:
    """Raise `UnsafePathError` if `path`, in a directory that other users can write, may be theirs.

    `found` is the status of `path`. Files of the directory's `owner` are accepted, but not links.
    """
    if stat.S_ISLNK(found.st_mode):
        raise _unsafe(path, "is a symbolic link")
    if found.st_uid not in {os.geteuid(), _ROOT, owner}:
        raise _unsafe(path, f"belongs to user {found.st_uid}")
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise _unsafe(path, "is a hard link")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise _unsafe(path, "is neither a file nor a directory")


def _unsafe(path: Path, what: str) -> UnsafePathError:
    return UnsafePathError(
        f"{path} {what}, and other users can write in {path.parent}: remove it, or use a directory that only the "
        "agent's user can write"
    )


def _others_write(found: os.stat_result) -> bool:
    """Return whether users other than root and the agent's own can create files in a directory."""
    if found.st_uid not in {os.geteuid(), _ROOT}:
        return True
    group = bool(found.st_mode & stat.S_IWGRP) and found.st_gid not in {os.getegid(), _ROOT}
    return group or bool(found.st_mode & stat.S_IWOTH)


def _exists(path: Path) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - beside the other functions of `os`
    except FileNotFoundError:
        return False
    return True
