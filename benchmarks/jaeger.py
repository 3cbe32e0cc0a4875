"""Measure the cost of Jaeger's formats: CPU time to decode and encode a span, and of a whole request to `jaeger_json`.

Run: `.venv/bin/python benchmarks/jaeger.py`. It needs no peer and takes about twenty seconds. Times are CPU time of
this process, best of many rounds; on a busy machine they are about 50 % larger.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import orjson
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.jaeger import from_json, from_proto, from_thrift, to_proto, to_thrift
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.jaeger_json import FACTORY
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.http_messages import Head, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch

SPANS = 512
ROUNDS = 200
FRESH = 400
"""Number of different traces."""
SECONDS = 1.0
NOW = 1_795_186_135_000_000_000
TRACE = "1d1aeade7e26e005ffb0bf74dad4dd92"
QUERIES = ("SELECT option_value FROM wp_options WHERE option_name = ?", "SELECT * FROM wp_posts WHERE ID = ?")


def regular(spans: int) -> bytes:
    """Return a trace in Jaeger's JSON: 620 bytes per span, with six tags and a reference."""
    made = []
    for number in range(spans):
        tags = {
            "span.kind": "client",
            "db.system": "mysql",
            "db.query.text": QUERIES[number % 2],
            "db.rows": number % 20,
            "server.address": "127.0.0.1",
            "wp.cached": number % 2 == 0,
        }
        types = {str: "string", int: "int64", bool: "bool"}
        parent = {"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{1:016x}"}
        made.append(
            {
                "traceID": TRACE,
                "spanID": f"{number + 1:016x}",
                "operationName": "wpdb.query",
                "references": [parent] if number else [],
                "startTime": 1795186135546316 + number,
                "duration": 1000 + number,
                "tags": [{"key": key, "type": types[type(value)], "value": value} for key, value in tags.items()],
                "logs": [],
                "processID": "p1",
            }
        )
    processes = {"p1": {"serviceName": "shop", "tags": [{"key": "environment", "type": "string", "value": "live"}]}}
    return orjson.dumps({"data": [{"traceID": TRACE, "spans": made, "processes": processes}]})


def fresh(spans: int, seed: int) -> list[bytes]:
    """Return such traces, all different: with unique ids and times, and a unique query in each span."""
    draw = random.Random(seed)
    bodies = []
    for _ in range(FRESH):
        trace, ids = f"{draw.getrandbits(128):032x}", [f"{draw.getrandbits(64):016x}" for _ in range(spans)]
        body = regular(spans).replace(TRACE.encode(), trace.encode())
        begin = draw.randrange(10**9)
        for number in reversed(range(spans)):
            body = body.replace(f'"{number + 1:016x}"'.encode(), f'"{ids[number]}"'.encode())
            body = body.replace(
                str(1795186135546316 + number).encode(), str(1795186136546316 + begin + number).encode()
            )
            query = QUERIES[number % 2].replace("?", f"{draw.getrandbits(40)}")
            body = body.replace(QUERIES[number % 2].encode(), query.encode(), 1)
        bodies.append(body)
    return bodies


def founding(spans: int) -> bytes:
    """Return a trace in the form of the project's first plugin: 530 bytes per span, untyped tags, a process in each."""
    tags = {
        "http.method": "GET",
        "http.url": "shop.example/",
        "http.user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0)",
        "wp.user_id": 0,
        "wp.is_admin": False,
        "wp.doing_cron": False,
        "http.status_code": 200,
    }
    made = [
        {
            "traceID": TRACE,
            "spanID": f"{number + 1:016x}",
            "operationName": "wordpress.request",
            "startTime": 1795186135546316 + number,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "process": {"serviceName": "shop.example", "tags": [{"key": "environment", "value": "live"}]},
            "duration": 87834,
        }
        for number in range(spans)
    ]
    return orjson.dumps({"data": [{"traceID": TRACE[::-1], "spans": made}]})


def otlp(spans: int) -> bytes:
    """Return an OTLP request: 245 bytes per span, with six attributes each."""
    draw = random.Random(spans)
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    scope.scope.name = "wordpress"
    for number in range(spans):
        span = scope.spans.add(
            trace_id=draw.randbytes(16),
            span_id=draw.randbytes(8),
            parent_span_id=draw.randbytes(8),
            name="wpdb.query",
            kind=3,
            start_time_unix_nano=NOW + number * 1000,
            end_time_unix_nano=NOW + number * 1000 + 100_000,
        )
        for key in ("db.system", "db.query.text", "server.address", "wp.phase"):
            span.attributes.add(key=key).value.string_value = QUERIES[number % 2][:30]
        span.attributes.add(key="db.rows").value.int_value = number % 20
        span.attributes.add(key="wp.cached").value.bool_value = number % 2 == 0
    return request.SerializeToString()


class Sink:
    """Accepts and discards every batch."""

    def admit(self) -> None:
        """Accept every request."""

    def consume(self, batch: Batch, answer: object = None) -> None:
        """Discard the batch."""


def handler() -> Callable[[bytes], object]:
    """Return a function that processes a body with the receiver, from the handler to the pipeline."""
    context = Context(
        ComponentId("jaeger_json"), Kind.RECEIVER, Registry(), structlog.get_logger(), time.monotonic, None
    )
    receiver = FACTORY.build(FACTORY.config.model_validate({}), context)
    receiver.next = {Signal.TRACES: Sink()}
    head = Head("POST", "/api/traces", {"user-agent": "WordPress/6.5; http://shop.example"})
    return lambda body: receiver._http.handle(Request(head, body))  # noqa: SLF001 - the function that the server calls


def cost(work: Callable[[], object]) -> float:
    """Return CPU seconds of `work`, best of many rounds."""
    work()
    best = float("inf")
    rounds, deadline = 0, time.monotonic() + SECONDS
    while rounds < ROUNDS or time.monotonic() < deadline:
        begin = time.thread_time_ns()
        work()
        best = min(best, time.thread_time_ns() - begin)
        rounds += 1
    return best / 1e9


def fresh_cost(handle: Callable[[bytes], object], spans: int) -> float:
    """Return CPU seconds of a new trace, best of several rounds."""
    best = float("inf")
    for seed in range(5):
        bodies = fresh(spans, seed)
        begin = time.thread_time_ns()
        for body in bodies:
            handle(body)
        best = min(best, time.thread_time_ns() - begin)
    return best / 1e9 / len(bodies)


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    handle = handler()
    print("one request to jaeger_json, decoded and handed over         CPU µs")
    for name, body, spans in [
        ("Jaeger's JSON, 1 span", regular(1), 1),
        ("Jaeger's JSON, 8 spans", regular(8), 8),
        ("Jaeger's JSON, 40 spans", regular(40), 40),
        ("the founding plugin's, 1 span", founding(1), 1),
        ("the founding plugin's, 8 spans", founding(8), 8),
    ]:
        parse = cost(lambda body=body: orjson.loads(body))
        note = f"{len(body) // spans} bytes a span; reading the JSON alone: {parse * 1e6:.1f}"
        print(f"  {name:<32} {cost(lambda body=body: handle(body)) * 1e6:24.1f}   {note}")
    print(f"  {'8 spans, no query comes twice':<32} {fresh_cost(handle, 8) * 1e6:24.1f}")
    body = otlp(SPANS)
    thrift, proto, json = to_thrift.encode(body)[0], to_proto.encode(body), regular(SPANS)
    print(f"\n{SPANS} spans at once                                            CPU ns a span")
    for name, work in [
        ("decode JSON", lambda: from_json.decode(json, NOW).body()),
        ("decode Thrift", lambda: from_thrift.decode(thrift).body()),
        ("decode protobuf", lambda: from_proto.decode(proto).body()),
        ("encode Thrift", lambda: to_thrift.encode(body)),
        ("encode protobuf", lambda: to_proto.encode(body)),
    ]:
        print(f"  {name:<32} {cost(work) / SPANS * 1e9:24.0f}")


if __name__ == "__main__":
    main()
