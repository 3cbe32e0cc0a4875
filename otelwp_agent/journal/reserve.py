"""Room on disk that is kept for the moment when there is none.

On a full disk the journal could not even say that entries are released, which is what makes room. So a file of some
blocks lies beside the segments; when the disk is full it is given up, for the next write to have its blocks.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 2**20
"""Bytes: the releases of a hundred thousand requests."""


class Reserve:
    """The file, if there is one."""

    def __init__(self, directory: Path) -> None:
        """Know where it lies."""
        self._path = directory / "reserve"
        self.held = False
        """Whether it has its blocks."""

    def hold(self) -> None:
        """Have the file, if the disk has room for it."""
        if self.held:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, SIZE)
            self.held = True
        except OSError:
            self.give_up()
        finally:
            os.close(fd)

    def give_up(self) -> None:
        """Give its blocks back."""
        self.held = False
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
