"""A small file with credentials that is read again when it changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

CHECK = 0.5
"""Seconds between two checks whether the file has changed."""
MAX_FILE = 2**20
"""Maximum size of the file in bytes."""


class WatchedFile:
    """Gives the content of a file to `use`, at the start and after each change.

    `use` raises `ValueError` if the content is invalid, and then keeps what it had before. It returns fields for the
    log, without secrets.
    """

    def __init__(
        self,
        path: str,
        use: Callable[[str], Mapping[str, object]],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Watch `path` for the component `name` (`extensions/basicauth`); nothing is read yet."""
        self.path = Path(path)
        self.problem = ""
        """The reason why the content could not be used, or ""."""
        self._use = use
        self._name = name
        self._log = log
        self._seen = (0, 0, 0)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read the file and watch it; raise `StartError`."""
        self.read()
        self._watch()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> Mapping[str, object]:
        """Read and use the file; raise `StartError` that says what is wrong, without quoting the content."""
        self._seen = self._state()  # before it is read: a later change is then found
        try:
            fields = self._use(self._content())
        except ValueError as error:
            self.problem = f"{self.path}: {error}"
            raise StartError(f"{self._name}: {self.problem}") from None
        self.problem = ""
        return fields

    def check(self) -> None:
        """Read the file if it has changed; log the result once, also a failure."""
        if self._state() == self._seen:
            return
        try:
            fields = self.read()
        except StartError as error:
            self._log.warning("file not reloaded; its old content stays in use", error=str(error))
        else:
            self._log.info("file reloaded", file=str(self.path), **fields)

    def _content(self) -> str:
        try:
            with self.path.open("rb") as stream:
                content = stream.read(MAX_FILE + 1)
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise ValueError(message) from error
        if len(content) > MAX_FILE:
            message = f"is larger than {MAX_FILE} bytes"
            raise ValueError(message)
        return content.decode("utf-8", "replace")

    def _state(self) -> tuple[int, int, int]:
        """Return numbers that change when the file is changed or replaced; zeros if there is none."""
        try:
            stat = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK, self._look)

    def _look(self) -> None:
        self.check()
        self._watch()
