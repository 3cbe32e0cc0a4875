"""Save the controller's measurements in a file, so that a restart continues with them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson

from otelwp_agent.errors import StartError
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from otelwp_agent.component import Context

SAVE_EVERY = 300.0
"""Seconds between saves; a crash loses at most this much. With 10 000 keys a save takes a quarter of a second."""


class StateFile:
    """The state file of one processor, named after it and its pipeline."""

    def __init__(self, directory: str, controller: Controller, context: Context) -> None:
        """Set the path in `directory`; nothing is read before `load`."""
        name = quote(f"{context.id} {context.pipeline}".strip(), safe=" ")
        self.path = Path(directory) / f"{name}.json"
        self._controller = controller
        self._context = context
        self._writing = asyncio.Lock()
        self.due = context.clock() + SAVE_EVERY

    def load(self) -> None:
        """Restore the controller from the file, if it exists; raise `StartError` if the folder is not writable."""
        try:
            data = self._read()
        except OSError as error:
            message = f"processors/{self._context.id}: state_directory cannot be used: {error}"
            raise StartError(message) from error
        if data is None:
            return
        now = self._context.clock()
        try:
            state = orjson.loads(data)
            restore(
                Controller(self._controller.policy, now), state, now
            )  # the first one is a test: an error must not leave half of the state
            restore(self._controller, state, now)
        except ValueError as error:  # not fatal: a controller without state learns within seconds
            file = str(self.path)
            self._context.log.warning("sampling state is invalid, starting without it", file=file, error=str(error))

    def _read(self) -> bytes | None:
        """Return the file's contents, `None` if there is no file; raises `OSError` if none can be written."""
        files.make_directory(self.path.parent)
        files.check_path(self.path)
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write in {str(self.path.parent)!r}")
        try:
            return files.read_file(self.path)
        except FileNotFoundError:
            return None

    async def save(self) -> None:
        """Write the controller's measurements; log an error."""
        now = self._context.clock()
        self.due = now + SAVE_EVERY
        data = orjson.dumps(state_of(self._controller, now))
        try:
            async with self._writing:
                await asyncio.to_thread(files.replace_file, self.path, data)
        except OSError as error:
            self._context.log.warning("sampling state not written", file=str(self.path), error=str(error))
