"""The wire between two agents, which sometimes changes a byte of a request's body, and sends old requests again.

Run by `tests.chaos.child`. It passes HTTP/1.1 requests of known length on, one connection to the collector for each
from the sender. What it changes or repeats is drawn from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import uvloop

from tests.chaos.child import obey, settings

FLIPPED = 0.03
"""Share of the requests of which one byte of the body is changed."""
REPLAYED = 0.05
"""Share of the requests that are sent again, unchanged, on a connection of their own: now and a while later."""
KEPT = 50
"""Old requests that may be sent again."""


class Wire:
    """Listens on `port` and passes everything on to `to`."""

    def __init__(self, *, port: int, to: int, seed: int) -> None:
        self.port, self.to = port, to
        self.chance = random.Random(seed)
        self.quiet = False
        self.done: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.old: list[bytes] = []
        self.tasks: set[asyncio.Task] = set()

    async def open(self) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the requests of one connection on, until either side ends."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.to)
            back = asyncio.ensure_future(self.pass_back(upstream_reader, writer))
            try:
                while True:
                    head, body = await read_message(reader)
                    upstream.write(head + self.changed(head, body))
                    await upstream.drain()
                    self.done["requests"] += 1
            finally:
                upstream.close()
                back.cancel()
        writer.close()

    async def pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the answers back."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    def changed(self, head: bytes, body: bytes) -> bytes:
        """Return the body to pass on, and perhaps send an old request again."""
        if self.quiet:
            return body
        self.old.append(head + body)
        del self.old[:-KEPT]
        if self.chance.random() < REPLAYED:
            task = asyncio.ensure_future(self.replay(self.chance.choice(self.old)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self.chance.random() < FLIPPED:
            self.done["flipped"] += 1
            flipped = bytearray(body)
            flipped[self.chance.randrange(len(flipped))] ^= 1 << self.chance.randrange(8)
            return bytes(flipped)
        return body

    async def replay(self, message: bytes) -> None:
        """Send an old request again, and count how it is answered."""
        self.done["replayed"] += 1
        answer = "none"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.to)
            try:
                writer.write(message)
                head, _ = await read_message(reader)
                answer = head.split(b" ", 2)[1].decode() + (" again" if b"x-otelwp-duplicate" in head.lower() else "")
            finally:
                writer.close()
        self.answers[answer] += 1

    # -- what the test asks

    async def set(self, *, quiet: bool) -> None:
        """Change and repeat nothing from now on, or do so again."""
        self.quiet = quiet
        if quiet and self.tasks:
            await asyncio.wait(self.tasks)

    async def counts(self) -> dict[str, object]:
        """Return what was done, and how old requests were answered."""
        return {"done": self.done, "answers": self.answers}


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request or answer of known length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head, await reader.readexactly(length)


async def main() -> None:
    """Pass on until the test ends."""
    wire = Wire(**settings())
    await wire.open()
    await obey({"set": wire.set, "counts": wire.counts})


if __name__ == "__main__":
    uvloop.run(main())
