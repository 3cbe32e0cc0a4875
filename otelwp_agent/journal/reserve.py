"""Disk space that is reserved for the case that the disk is full.

On a full disk the journal could not write that entries are released, which is what frees space. So there is a file with
some blocks beside the segments. When the disk is full its blocks are freed for the next write.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from otelwp_agent.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    import structlog

SIZE = 2**20
"""Bytes, enough for the releases of a hundred thousand requests."""


class Reserve:
    """A preallocated file, if there was space for it."""

    def __init__(self, directory: Path, log: structlog.typing.FilteringBoundLogger) -> None:
        """Prepare; `hold` creates the file."""
        self._path = directory / "reserve"
        self._log = log
        self._reported = False
        self.held = False
        """Whether the file has its blocks."""

    def hold(self) -> None:
        """Preallocate the file if there is space."""
        if self.held:
            return
        try:
            self._allocate()
            self.held = True
            self._reported = False
        except OSError as error:
            self.give_up()
            if not self._reported:  # once, until there is space again
                self._reported = True
                self._log.warning(
                    "journal reserve cannot be allocated; the disk is nearly full",
                    file=str(self._path),
                    bytes=SIZE,
                    error=error.strerror,
                )

    def _allocate(self) -> None:
        fd = files.open_file(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            os.posix_fallocate(fd, 0, SIZE)
        finally:
            files.close(fd)

    def give_up(self) -> None:
        """Free its blocks."""
        self.held = False
        with contextlib.suppress(OSError):
            files.remove(self._path)
