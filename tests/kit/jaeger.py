"""Jaeger receivers over real sockets, captured requests, and what became of them as OTLP/JSON."""

from __future__ import annotations

import asyncio
import json
import time
from importlib import import_module
from pathlib import Path

import structlog

from otelwp_agent.codecs.jaeger.from_json import decode
from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "jaeger"
FRONT = (CAPTURES / "001-front.json").read_bytes()
WORDPRESS = "WordPress/6.1.9; http://shop.example:8980"
NOW = 1_795_186_135_000_000_000
TRACE = "1d1aeade7e26e005ffb0bf74dad4dd92"
OTHER = "de8a5e8296f32c91e23bad210c9f5dc7"


def document(traces):
    """Return decoded traces as an OTLP/JSON document."""
    return json.loads(encode(Signal.TRACES, traces.body()))


def spans_of(traces):
    """Return the spans of decoded traces, as OTLP/JSON."""
    return [
        span
        for resource in document(traces).get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def attributes_of(item):
    """Return the attributes of a span, a resource or an event as a dict of plain values."""
    return {each["key"]: next(iter(each["value"].values()), None) for each in item.get("attributes", [])}


def span(**fields):
    """Return a regular span with these fields."""
    return {
        "traceID": TRACE,
        "spanID": "d20dab9aa6a9eaf4",
        "operationName": "page",
        "references": [],
        "startTime": 1795186135546316,
        "duration": 87834,
        "tags": [],
        "logs": [],
        "processID": "p1",
    } | fields


def trace(*spans, **fields):
    """Return a regular document of one trace with these spans."""
    trace = {
        "traceID": TRACE,
        "spans": list(spans) or [span()],
        "processes": {"p1": {"serviceName": "shop", "tags": []}},
    } | fields
    return {"data": [trace]}


def child_of(number, parent, **fields):
    """Return a regular span with this number as its id, and a parent."""
    reference = {"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{parent:016x}"}
    return span(spanID=f"{number:016x}", references=[reference], **fields)


def read(value):
    """Decode a document, or its bytes."""
    return decode(value if isinstance(value, bytes) else json.dumps(value).encode(), NOW)


def one(**fields):
    """Decode one regular span with these fields; return it, and the repairs."""
    traces = read(trace(span(**fields)))
    (found,) = spans_of(traces)
    return found, traces.repairs


class Agent:
    """A receiver and what it hands over."""

    def __init__(self, type_="jaeger_json", **config):
        factory = import_module(f"otelwp_agent.receivers.{type_}").FACTORY
        config = config or {"endpoint": "127.0.0.1:0"}
        self.registry = Registry()
        context = Context(
            ComponentId(type_), Kind.RECEIVER, self.registry, structlog.get_logger(), time.monotonic, None
        )
        self.receiver = factory.build(factory.config.model_validate(config), context)
        self.pipeline = Catcher()
        self.receiver.next = {Signal.TRACES: self.pipeline}

    async def __aenter__(self):
        await self.receiver.start()
        return self

    async def __aexit__(self, *_):
        await self.receiver.shutdown()

    @property
    def port(self):
        return int(next(iter(self.receiver.endpoints().values())).rsplit(":", 1)[1])

    async def post(self, body, method="POST", path="/api/traces", **headers):
        """Send a request; return the status, and the body of the answer."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:-2])
        answer = await reader.readexactly(int(fields["content-length"]))
        writer.close()
        await writer.wait_closed()
        return int(head[0].split()[1]), answer.decode()

    def refused(self, reason):
        return self.registry.value("otelwp_receiver_refused_requests", reason=reason)

    def repairs(self, kind, **labels):
        return self.registry.value("otelwp_receiver_mended", kind=kind, **labels)


async def handed_over(agent, count):
    """Wait until so many senders have to wait; return what they wait for."""
    async with asyncio.timeout(60):
        while len(agent.pipeline.waiting) < count:
            await asyncio.sleep(0)
    return agent.pipeline.waiting


def large(spans=1000):
    """Return a request with so many spans, as bytes."""
    return json.dumps(trace(*[span(spanID=f"{number + 1:016x}") for number in range(spans)])).encode()


async def taken(agent, items):
    """Wait until the receiver has forwarded so many items."""
    async with asyncio.timeout(60):
        while agent.pipeline.items < items:
            await asyncio.sleep(0)
