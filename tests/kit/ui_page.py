"""The extension `ui` beside fakes of the agent, and requests to it."""

import asyncio
import contextlib
import json

import structlog

from otelwp_agent.component import ComponentId, Context, Kind, NoHost
from otelwp_agent.extensions.ui import Config, Ui
from otelwp_agent.service.control import answer
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.traces.spans import divide
from otelwp_agent.traces.store import TraceSource, TraceStore
from otelwp_agent.transport.http_messages import Response
from tests.kit.page_traces import page


class Source(TraceSource):
    """A component with the traces of some pages."""

    def __init__(self, *pages):
        self.store = TraceStore(2**20)
        for each in pages:
            self.store.add(divide(each.SerializeToString()))


class UiHost(NoHost):
    """What the extension `ui` needs of an agent. `asked` lists the requests that it made to the control socket."""

    def __init__(self, *sources):
        super().__init__()
        self.sources = sources
        self.asked = []

    def providers(self, capability):
        return self.sources

    def control(self, path):
        def handler(request):
            self.asked.append((path, request.body))
            return answer({"path": path})

        return handler


@contextlib.asynccontextmanager
async def serving(host=None, *, clock=lambda: 0.0, extensions=None, **settings):
    """Return the started extension."""
    context = Context(
        id=ComponentId("ui"),
        kind=Kind.EXTENSION,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=clock,
        host=host or UiHost(Source(*(page(number) for number in range(6)))),
        extensions=extensions or {},
    )
    extension = Ui(Config.model_validate({"endpoint": "127.0.0.1:0", **settings}), context)
    await extension.start()
    try:
        yield extension
    finally:
        await extension.shutdown()


async def ask(extension, target, method="GET", data=None, **headers):
    """Send a request; return the response and its body: JSON, or bytes."""
    body = b"" if data is None else json.dumps(data).encode()
    head = {"Host": "localhost", "Connection": "close", "Content-Length": len(body), **headers}
    if data is not None:
        head.setdefault("Content-Type", "application/json")
    reader, writer = await asyncio.open_connection("127.0.0.1", extension.port)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
    writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    text = await reader.read()
    writer.close()
    await writer.wait_closed()
    start, _, content = text.partition(b"\r\n\r\n")
    first, *rest = start.decode().split("\r\n")
    fields = tuple(tuple(line.split(": ", 1)) for line in rest)
    response = Response(int(first.split()[1]), content, headers=fields)
    return response, json.loads(content) if ("Content-Type", "application/json") in fields else content
