"""Look up the addresses of a host name, as the system does: DNS, /etc/hosts and what else it is configured for."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Lookup = Callable[[str, int], Awaitable[list[str]]]
    """Returns the addresses of a host name, each with the port; raises `OSError`."""


class LookupFailedError(Exception):
    """The addresses of a name are not known now."""


async def system_lookup(hostname: str, port: int) -> list[str]:
    """Return the addresses of `hostname` as `host:port`; raise `OSError` if there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(hostname, port, type=socket.SOCK_STREAM)
    return [f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" for *_, (host, *_) in found]


class NameLookup:
    """Looks up one name again and again. One look-up is under way at a time, even if the system does not answer."""

    def __init__(self, hostname: str, port: int, *, timeout: float, lookup: Lookup = system_lookup) -> None:
        """Wait at most `timeout` seconds for each result."""
        self._hostname = hostname
        self._port = port
        self._timeout = timeout
        self._lookup = lookup
        self._task: asyncio.Task[list[str]] | None = None

    async def resolve(self) -> list[str]:
        """Return the sorted addresses with the port, each once; raise `LookupFailedError`."""
        if self._task is None:
            self._task = spawn(self._answer(), name=f"look up {self._hostname}")
        task = self._task
        done, _ = await asyncio.wait({task}, timeout=self._timeout)
        if not done:
            message = f"the name `{self._hostname}` was not resolved within {self._timeout:g} s"
            raise LookupFailedError(message)
        self._task = None
        found = sorted({*task.result()})
        if not found:
            message = f"the name `{self._hostname}` has no address"
            raise LookupFailedError(message)
        return found

    async def aclose(self) -> None:
        """Stop a look-up that is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _answer(self) -> list[str]:
        try:
            return await self._lookup(self._hostname, self._port)
        except (OSError, UnicodeError):  # UnicodeError: a label of the name is too long
            return []
