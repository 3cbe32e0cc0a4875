"""Measure the cost of Zipkin's formats: CPU time to encode and decode a span, and to export it to a server.

Run: `.venv/bin/python benchmarks/zipkin.py`. It needs no peer and takes about a minute. Times are CPU time of this
process, best of many rounds; on a busy machine they are about 50 % larger. The server is a separate process.

The cost of a span depends on how much it has in common with others: its tail (attributes and status), its attributes,
its keys. The rows differ in how much is new to the encoder:

* recurring: the bodies of `make bench`, six attributes, one of which has 200 values;
* mixed: the same, with a unique address in every third span, as for the pages, users and queries of a site;
* one new: the same, with another of the six attributes unique in every span;
* all new: all six attributes are unique in every span;
* events: recurring, with an event with two attributes in every span, which needs the slow path of the encoder.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import time
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from workload import bodies

from otelwp_agent.codecs.zipkin import from_json, from_proto
from otelwp_agent.codecs.zipkin.to_json import JsonEncoder
from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.exporters.zipkin import FACTORY
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.memory import GC_THRESHOLD
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Draw = Callable[[bytes], bytes]

SPANS = 512
ROUNDS = 12
FRESH_ROUNDS = 4
"""Number of rounds with new values in each."""
NOW = 1_795_186_135_000_000_000
EXPORTED = 8192
"""Spans in one exported batch: the size of the `batch` processor."""
SECONDS = 3.0
GOAL = 250_000
"""Spans per CPU-second that an export has to reach."""


def changed(  # noqa: PLR0913 - what may be changed
    body: bytes, draw: random.Random, *, new: int = 0, every: int = 1, text: str = "", events: bool = False
) -> bytes:
    """Return a request in which `new` attributes of every `every`-th span are unique; with `events`, each gets one."""
    request = ExportTraceServiceRequest.FromString(body)
    for number, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        for attribute in span.attributes[: 0 if number % every else new]:
            attribute.value.string_value = f"{text}{draw.getrandbits(64):x}"
        if events:
            event = span.events.add(name="cache miss", time_unix_nano=span.start_time_unix_nano)
            event.attributes.add(key="cache.key").value.string_value = "options"
            event.attributes.add(key="cache.size").value.int_value = 7
    return request.SerializeToString()


def measure(work: Callable[[bytes], object], inputs: Sequence[bytes], fresh: Draw | None = None) -> float:
    """Return CPU nanoseconds per span: mean over bodies, best of the rounds; with `fresh`, new bodies in each round."""
    for each in inputs:
        work(each)
    best = float("inf")
    for _ in range(ROUNDS if fresh is None else FRESH_ROUNDS):
        bodies_ = inputs if fresh is None else [fresh(each) for each in inputs]
        start = time.process_time_ns()
        for each in bodies_:
            work(each)
        best = min(best, time.process_time_ns() - start)
    return best / len(inputs) / SPANS


def decode(form: Any) -> Callable[[bytes], object]:
    """Return a function that decodes a body."""

    def work(body: bytes) -> object:
        steps = form.decoding(body, NOW)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value.traces.body()

    return work


def row(what: str, nanoseconds: float) -> None:
    """Print a line."""
    print(f"{what:44}{nanoseconds:9.0f}{1e9 / nanoseconds:12,.0f}", flush=True)


def serve(pipe: Any) -> None:
    """Answer every POST with 202; runs in a separate process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def export(port: int, format_: str, inputs: Sequence[bytes]) -> float:
    """Return CPU nanoseconds per span of the exporter, from the batch to the answer."""
    config = FACTORY.config.model_validate(
        {"endpoint": f"http://127.0.0.1:{port}/api/v2/spans", "format": format_, "max_request_size": "64MiB"}
    )
    host: Any = None
    context = Context(ComponentId("zipkin"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, host)
    exporter: Any = FACTORY.build(config, context)
    await exporter.start()
    joined = [b"".join(inputs[first : first + EXPORTED // SPANS]) for first in range(0, len(inputs), EXPORTED // SPANS)]
    batches = [Batch(Signal.TRACES, body, EXPORTED, Origin(), [(Receipt(EXPORTED), EXPORTED)]) for body in joined]
    await exporter.export(batches[0])
    best, until = float("inf"), time.monotonic() + SECONDS
    while time.monotonic() < until:
        start = time.process_time_ns()
        for batch in batches:
            await exporter.export(batch)
        best = min(best, (time.process_time_ns() - start) / len(batches) / EXPORTED)
    await exporter.shutdown()
    return best


def main() -> None:
    """Print a table."""
    gc.set_threshold(*GC_THRESHOLD)  # the agent's setting
    draw = random.Random(1)
    recurring = bodies(SPANS)[:48]
    forms: dict[str, Draw | None] = {
        "recurring": None,
        "mixed": lambda body: changed(body, draw, new=1, every=3, text="https://shop.example/?p="),
        "one new": lambda body: changed(body, draw, new=1),
        "all new": lambda body: changed(body, draw, new=6),
    }
    print(f"{'':44}{'ns a span':>9}{'a CPU-second':>13}")
    for name, fresh in forms.items():
        row(f"OTLP to JSON, {name}", measure(JsonEncoder("x").encode, recurring, fresh))
        row(f"OTLP to protobuf, {name}", measure(ProtoEncoder("x").encode, recurring, fresh))
    events = [changed(body, draw, events=True) for body in recurring]
    row("OTLP to JSON, events", measure(JsonEncoder("x").encode, events))
    row("OTLP to protobuf, events", measure(ProtoEncoder("x").encode, events))
    row("JSON to OTLP", measure(decode(from_json), [JsonEncoder("x").encode(body).body for body in recurring]))
    row("protobuf to OTLP", measure(decode(from_proto), [ProtoEncoder("x").encode(body).body for body in recurring]))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    for format_ in ("json", "proto"):
        nanoseconds = asyncio.run(export(port, format_, recurring))
        verdict = "reached" if 1e9 / nanoseconds >= GOAL else "missed"
        row(f"exporter, {format_}, HTTP included ({GOAL:,} {verdict})", nanoseconds)
    server.terminate()


if __name__ == "__main__":
    main()
