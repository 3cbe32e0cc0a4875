"""Room on disk that is kept for the moment when there is none.

On a full disk the journal could not even say that entries are released, which is what makes room. So a file of some
blocks lies beside the segments; when the disk is full it is given up, for the next write to have its blocks.
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
"""Bytes: the releases of a hundred thousand requests."""


class Reserve:
    """The file, if there is one."""

    def __init__(self, directory: Path, log: structlog.typing.FilteringBoundLogger) -> None:
        """Create nothing yet."""
        self._path = directory / "reserve"
        self._log = log
        self._reported = False
        self.held = False
        """Whether it has its blocks."""

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
        """Give its blocks back."""
        self.held = False
        with contextlib.suppress(OSError):
            files.remove(self._path)
