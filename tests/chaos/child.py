"""A process that a chaos test starts and talks to: lines of JSON on stdin and stdout, a command and its answer.

It ends when its stdin does, so none outlives the test that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """The test's end: starts `module` with `settings`, and asks."""

    def __init__(self, module: str, **settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        self.ask("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have it carry out a command; return its answer."""
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self._process.args[2]} ended while it was asked to {command}"
        return json.loads(line)


async def obey(commands: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Carry out what the test asks until it asks no more: the child's end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        arguments = json.loads(line)
        command = arguments.pop("command")
        answer = None if command == "ready" else await commands[command](**arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def settings() -> dict[str, Any]:
    """Return what the test said at the start: the child's end."""
    return json.loads(sys.argv[1])
