"""An HTTP server that answers each request with the bytes that a test wants, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Which connection it came on, from 1."""

    @property
    def path(self) -> str:
        return self.line.split()[1]


def response(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """Write a response; `content_type="…"` becomes the header Content-Type."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n".encode() + body


class Close(Exception):  # noqa: N818 - it is an instruction
    """Raised by an answer: write `last`, then close the connection."""

    def __init__(self, last: bytes = b"") -> None:
        self.last = last


Answer = Callable[[Seen], Awaitable[bytes]]


class HttpPeer:
    """Serves on loopback, or on the unix socket `path`, while it is entered."""

    def __init__(
        self, answer: Answer | bytes = b"", *, tls: ssl.SSLContext | None = None, path: str = "", port: int = 0
    ) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.port = port
        self._answer = answer or response()
        self._tls = tls
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self._path:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in rest if each)}
                seen = Seen(line, headers, await reader.readexactly(int(headers["content-length"])), number)
                self.seen.append(seen)
                writer.write(self._answer if isinstance(self._answer, bytes) else await self._answer(seen))
                await writer.drain()
        except Close as close:
            writer.write(close.last)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


def url(peer: HttpPeer, scheme: str = "http") -> str:
    """Return the address of a peer."""
    return f"{scheme}://127.0.0.1:{peer.port}"
