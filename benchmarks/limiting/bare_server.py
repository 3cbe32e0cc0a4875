"""Answer every read with the same bytes: the cost of the kernel and of uvloop, with which flood.py compares the agent.

Run by flood.py: `python bare_server.py PORT`. It does not parse requests, so a request must arrive in one read.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

BUFFER = memoryview(bytearray(256 * 1024))
ANSWER = (
    b"HTTP/1.1 429 Too Many Requests\r\nDate: Mon, 30 Nov 2026 21:22:00 GMT\r\nContent-Type: application/x-protobuf\r\n"
    b"Retry-After: 1\r\nX-RateLimit-Limit: 20\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 4\r\n"
    b"Content-Length: 110\r\n\r\n"
) + bytes(110)
"""As long as the agent's refusal."""


class Answering(asyncio.BufferedProtocol):
    """One connection."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that all connections share."""
        del sizehint
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Answer."""
        del nbytes
        self.transport.write(ANSWER)


async def main() -> None:
    """Serve on loopback."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
