"""Measure the cost of each processor by itself: CPU nanoseconds per span and request, best of several rounds.

Run: `.venv/bin/python benchmarks/processors.py`. It needs no peer and takes about ten seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.component import ComponentId, Context, Kind, Processor
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

SPANS = 512
ROUNDS = 7
ORIGIN = Origin("otlp", "http")
DELETE_ABSENT = [{"key": "user.password", "action": "delete"}]
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("probabilistic_sampler", "50 %", {"sampling_percentage": 50}),
    ("probabilistic_sampler", "10 %", {"sampling_percentage": 10}),
    ("probabilistic_sampler", "50 %, hash_seed", {"sampling_percentage": 50, "hash_seed": 1}),
    ("resource", "upsert", {"attributes": [{"key": "env", "value": "prod", "action": "upsert"}]}),
    ("attributes", "insert", {"actions": [{"key": "env", "value": "prod", "action": "insert"}]}),
    ("attributes", "update, present", {"actions": [{"key": "url.path", "value": "-", "action": "update"}]}),
    ("attributes", "delete, absent", {"actions": DELETE_ABSENT}),
    ("memory_limiter", "not limited", {"limit_mib": 4000}),
    ("batch", "8192 spans", {}),
    ("wordpress", "", {}),
)


PAGE = Path(__file__).resolve().parents[1] / "tests/data/captures/auto-wordpress-front.pb"
PAGE_SPANS = 79
"""Number of spans that opentelemetry-auto-wordpress sent for one page."""


class Sink:
    """Accepts and discards every batch."""

    def consume(self, batch: Batch) -> None:
        """Discard the batch."""


class NoHost:
    """A host without components."""

    ready = True


def request(spans: int) -> bytes:
    """Return a request of `spans` spans of 243 bytes, 6 attributes each."""
    draw = random.Random(spans)
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    scope.scope.name = "lib"
    for number in range(spans):
        span = scope.spans.add(
            trace_id=draw.randbytes(16),
            span_id=draw.randbytes(8),
            name="GET /product/{id}",
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_000_000_900_000 + number,
        )
        texts = ("http.request.method", "GET"), ("url.path", "/product/123"), ("http.route", "/product/{id}")
        for key, text in (*texts, ("server.address", "shop.example")):
            span.attributes.add(key=key).value.string_value = text
        for key, value in (("http.response.status_code", 200), ("db.calls", 18)):
            span.attributes.add(key=key).value.int_value = value
    return made.SerializeToString()


def build(type_: str, settings: dict[str, Any]) -> Processor:
    """Return a processor that is connected to a sink."""
    factory = import_module(f"otelwp_agent.processors.{type_}").FACTORY
    host: Any = NoHost()
    context = Context(ComponentId(type_), Kind.PROCESSOR, Registry(), structlog.get_logger(), time.monotonic, host)
    processor: Processor = factory.build(factory.config(**settings), context)
    processor.next = Sink()
    return processor


def measure(work: Callable[[], None], times: int) -> float:
    """Return CPU nanoseconds of one `work`."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - start)
    return best / times * 1e9


def feed(processor: Processor, body: bytes, items: int) -> Callable[[], None]:
    """Return a function that sends one request to a processor."""

    def work() -> None:
        processor.consume(Batch(Signal.TRACES, body, items, ORIGIN, [(Receipt(items), items)]))

    return work


async def main() -> None:
    """Print a table."""
    large, one = request(SPANS), request(1)
    made = measure(lambda: Batch(Signal.TRACES, one, 1, ORIGIN, [(Receipt(1), 1)]) and None, 20_000)
    print(f"{'processor':24}{'what':20}{'ns a span of 512':>18}{'ns a request of 1':>19}")
    for type_, what, settings in CASES:
        processor = build(type_, settings)
        await processor.start()
        many = (measure(feed(processor, large, SPANS), 40) - made) / SPANS
        single = measure(feed(processor, one, 1), 2_000) - made
        await processor.shutdown()
        print(f"{type_:24}{what:20}{many:18.1f}{single:19.0f}")
    page = PAGE.read_bytes()
    seen = measure(feed(build("wordpress", {}), page, PAGE_SPANS), 40) / PAGE_SPANS
    print(f"{'wordpress':24}a front page of {PAGE_SPANS} spans, nearly all of them queries: {seen:.1f} ns a span")


if __name__ == "__main__":
    asyncio.run(main())
