"""Make each system call on files in one directory fail in turn, in the manner of SQLite's tests.

Everything that the agent keeps on disk goes through the functions of `os` by name (`storage.files`). `Faults` replaces
them for paths below one directory and for descriptors opened there; it counts the calls, and makes the Nth of one
function fail, alone or with all that follow. An audit hook of the interpreter notices files that are opened, renamed or
removed past these functions, so that no call is missed.
"""

import errno
import fcntl
import os
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

SHORT = "short"
ERRORS = ("ENOSPC", "EIO", "EACCES")
GONE = "ENOENT"
"""Of calls that name a path."""
TRANSFERS = ("pread", "pwrite", "pwritev", "write")
"""Calls that may also do less than they were asked to."""
ON_PATHS = ("listdir", "lstat", "mkdir", "open", "readlink", "replace", "stat", "unlink")
ON_DESCRIPTORS = (
    "close",
    "fchmod",
    "fdatasync",
    "fstat",
    "fsync",
    "ftruncate",
    "posix_fallocate",
    *TRANSFERS,
)
FLOCK = "flock"
FORCING = ("fdatasync", "fsync")
"""Not really called: no power fails here."""
WATCHED = frozenset(
    {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "os.truncate"}
)


@dataclass(frozen=True)
class Fault:
    """The call with this number (from 1) fails with this error; with `lasting`, all that follow do as well."""

    call: str
    error: str
    number: int
    lasting: bool

    def __str__(self):
        return f"{self.call} number {self.number}{' and all later' if self.lasting else ''}: {self.error}"


class Faults:
    """A context in which file operations below `directory` are counted, and one of them fails."""

    def __init__(self, directory, fault=None):
        self.fault = fault
        self.calls = Counter()
        self.fired = 0
        self.missed = []
        """Operations that did not go through a replaced function."""
        self._directory = os.fspath(directory)
        self._descriptors = set()
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._real = {}

    def __enter__(self):
        for name in (*ON_PATHS, *ON_DESCRIPTORS):
            self._real[name] = getattr(os, name)
            setattr(os, name, self._replacement(name))
        self._real[FLOCK] = fcntl.flock
        fcntl.flock = self._replacement(FLOCK)
        _active.append(self)
        return self

    def __exit__(self, *_):
        _active.remove(self)
        fcntl.flock = self._real.pop(FLOCK)
        for name, real in self._real.items():
            setattr(os, name, real)
        for fd in self._descriptors:  # of an agent that was killed
            self._real["close"](fd)

    def stop(self):
        """Let everything succeed from now on."""
        self.fault = None

    @contextmanager
    def aside(self):
        """Let the test itself change files: that is neither counted nor missed."""
        fault, self.fault, self._inside.now = self.fault, None, True
        calls = self.calls.copy()
        try:
            yield
        finally:
            self.fault, self._inside.now, self.calls = fault, False, calls

    def audit(self, event, arguments):
        if event in WATCHED and not getattr(self._inside, "now", False):
            paths = [each for each in arguments if isinstance(each, (str, os.PathLike))]
            self.missed += [(event, path) for path in paths if os.fspath(path).startswith(self._directory)]

    def _replacement(self, name):
        real = self._real[name]

        def call(*arguments, **keywords):
            if not self._ours(arguments[0]):
                return real(*arguments, **keywords)
            self._inside.now = True
            try:
                if self._counts(name):
                    return self._fail(name, real, arguments)
                if name in FORCING:
                    return None
                found = real(*arguments, **keywords)
            finally:
                self._inside.now = False
            self._remember(name, arguments, found)
            return found

        return call

    def _ours(self, target):
        if isinstance(target, int):
            return target in self._descriptors
        return os.fspath(target).startswith(self._directory)

    def _counts(self, name):
        """Count a call; return whether it is to fail."""
        with self._lock:
            self.calls[name] += 1
            fault = self.fault
            if fault is None or fault.call != name:
                return False
            hit = self.calls[name] == fault.number or (fault.lasting and self.calls[name] > fault.number)
            self.fired += hit
            return hit

    def _fail(self, name, real, arguments):
        if self.fault.error != SHORT:
            if name == "unlink" and self.fault.error == GONE:  # another process has removed it
                real(*arguments)
            if name == "close":  # Linux closes the descriptor whatever it returns
                real(*arguments)
                self._remember(name, arguments, None)
            number = getattr(errno, self.fault.error)
            raise OSError(number, os.strerror(number))
        fd, data, *rest = arguments
        if name == "pread":
            return real(fd, max(1, data // 2), *rest)
        if name == "pwritev":
            whole = b"".join(data)
            return real(fd, [whole[: max(1, len(whole) // 2)]], *rest)
        return real(fd, data[: max(1, len(data) // 2)], *rest)

    def _remember(self, name, arguments, found):
        if name == "open":
            self._descriptors.add(found)
        elif name == "close":
            self._descriptors.discard(arguments[0])


_active = []


def _audit(event, arguments):
    for each in _active:
        each.audit(event, arguments)


sys.addaudithook(_audit)


def faults(calls):
    """Yield every fault that can hit a run which makes these calls."""
    for call, count in sorted(calls.items()):
        special = (SHORT,) if call in TRANSFERS else (GONE,) if call in ON_PATHS else ()
        for error in (*ERRORS, *special):
            for number in range(1, count + 1):
                yield Fault(call, error, number, lasting=False)
            for number in sorted({1, count}):
                yield Fault(call, error, number, lasting=True)
