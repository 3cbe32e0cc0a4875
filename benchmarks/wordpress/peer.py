"""Simulated agent in one of several states: a process that listens on a TCP port and two unix sockets.

`python peer.py STATE FOLDER` prints the port when it listens. States: `healthy` reads and answers immediately, `slow`
reads and answers after two seconds, `hung` accepts connections and neither reads nor answers. (The state stopped needs
no process.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

SLOW_SECONDS = 2.0
BACKLOG = 512
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: str) -> None:
    """Answer one request according to `state`."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or b"0"))
        if state == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        writer.write(ANSWER)
        await writer.drain()
    writer.close()


async def hold(listening: socket.socket) -> None:
    """Accept all connections without reading from them."""
    held = []
    while True:
        held.append(await asyncio.get_running_loop().sock_accept(listening))


async def serve(state: str, folder: Path) -> None:
    """Listen until the process is killed."""
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(folder / "datagram.sock"))
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.bind(str(folder / "otlp.sock"))
    stream.listen(BACKLOG)
    tcp = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    for name in ("datagram.sock", "otlp.sock"):
        os.chmod(folder / name, 0o666)  # noqa: PTH101 - nothing else is running yet
    print(tcp.getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    for listening in (datagrams, stream, tcp):
        listening.settimeout(0)
    if state == "hung":
        await asyncio.gather(hold(stream), hold(tcp))
    loop.add_reader(datagrams, lambda: datagrams.recv(1 << 20))
    for listening in (stream, tcp):
        await asyncio.start_server(lambda r, w: answer(r, w, state), sock=listening, backlog=BACKLOG)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
