"""An HTTP server of ours on a loopback socket, and a client that says exactly what a test wants said."""

import asyncio
import contextlib
import socket
import struct

import structlog

from otelwp_agent.config.blocks import HttpServer as Settings
from otelwp_agent.transport.http_messages import Request, Response, Route
from otelwp_agent.transport.http_server import HttpServer

LOG = structlog.get_logger()
OK = Response(200, b"ok", "text/plain")


class Site:
    """A server, the requests it got and the refusals it counted."""

    def __init__(self, routes=None, in_flight=None, gate=None, **settings):
        settings.setdefault("endpoint", "127.0.0.1:0")
        self.requests: list[Request] = []
        self.refusals: list[str] = []
        self.server = HttpServer(
            Settings.model_validate(settings),
            routes or {"/v1/traces": Route(self.take)},
            name="receivers/test",
            log=LOG,
            on_refused=self.refusals.append,
            in_flight=in_flight,
            gate=gate,
        )

    def take(self, request):
        self.requests.append(request)
        return OK

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.shutdown(grace=0.5)

    async def connect(self):
        return Client(*await asyncio.open_connection("127.0.0.1", self.server.port))


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        async with asyncio.timeout(60):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, body

    async def closed(self):
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read() == b""
        return True

    def reset(self):
        """Close with RST, as a client does that crashes; does nothing if the connection is already closed."""
        transport = self.writer.transport
        if transport.is_closing():
            return
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def post(body=b"hello", path="/v1/traces", extra=""):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
