"""Requests with whole traces or with traces in two parts, repeated with new trace ids: 270 bytes per span.

A few traces have an error with the message `ERROR`; routes have a Pareto distribution. Reproducible.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status
from workload import START, query, text

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = 1_000
ERRORS = 0.02
"""Share of traces with an error, which is in one of their spans."""
ERROR = "deadlock found when trying to get lock"
REQUESTS = 600
"""Number of different requests, each with a hundred spans."""


class Request(NamedTuple):
    """A request that is repeated with other trace ids."""

    body: bytes
    spans: int
    trace_ids: list[bytes]
    begun: list[bytes]
    """Trace ids of traces whose first part was sent one turn earlier."""


def trace(spans: int, chance: random.Random) -> list[Span]:
    """Return a trace with the root span last, as from a sender that sends spans when they end."""
    trace_id, root = chance.randbytes(16), chance.randbytes(8)
    fails = chance.randrange(spans) if chance.random() < ERRORS else -1
    made = []
    for index in range(spans):
        is_root = index == spans - 1
        start = START + index * 1_000_000
        length = chance.expovariate(1 / 200_000_000) if is_root else chance.randrange(100_000, 5_000_000)
        span = Span(
            trace_id=trace_id,
            span_id=root if is_root else chance.randbytes(8),
            parent_span_id=b"" if is_root else root,
            name="GET /product/{id}" if is_root else "wpdb.query SELECT",
            kind=Span.SPAN_KIND_SERVER if is_root else Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=START if is_root else start,
            end_time_unix_nano=start + int(length),
            attributes=_request(chance) if is_root else query(chance),
        )
        if index == fails:
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = ERROR
        made.append(span)
    return made


def _request(chance: random.Random) -> list[KeyValue]:
    route = min(int(chance.paretovariate(0.6)), KEYS) - 1
    return [
        text("http.request.method", "GET"),
        text("url.path", f"/product/{chance.randrange(100_000)}"),
        text("url.scheme", "https"),
        text("server.address", "shop.example"),
        text("http.route", f"/product/{route}"),
        KeyValue(key="http.response.status_code", value=AnyValue(int_value=200)),
    ]


def body(spans: list[Span]) -> bytes:
    """Return a request of these spans."""
    group = ResourceSpans()
    group.resource.attributes.extend(
        [text("service.name", "shop"), text("service.version", "6.8.1"), text("host.name", "web-03.example")]
    )
    scope = group.scope_spans.add()
    scope.scope.name = "wordpress"
    scope.spans.extend(spans)
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def whole(traces: int, spans: int) -> list[Request]:
    """Return requests of whole traces."""
    chance = random.Random(traces)
    made = []
    for _ in range(REQUESTS):
        parts = [trace(spans, chance) for _ in range(traces)]
        data = body([span for part in parts for span in part])
        made.append(Request(data, traces * spans, [part[0].trace_id for part in parts], []))
    return made


def halves() -> list[Request]:
    """Return requests with the second halves of ten traces and the first halves of ten others."""
    chance = random.Random(7)
    parts = [trace(10, chance) for _ in range(10 * REQUESTS)]
    made = []
    for start in range(0, len(parts), 10):
        fresh, pending = parts[start : start + 10], parts[start - 10 : start] if start else parts[-10:]
        spans = [span for part in pending for span in part[5:]] + [span for part in fresh for span in part[:5]]
        ids = [part[0].trace_id for part in (*pending, *fresh)]
        made.append(Request(body(spans), 100, ids, [] if start else ids[:10]))
    return made


def again(request: Request, turn: int) -> bytes:
    """Return the body of a request with the trace ids of this turn."""
    data = request.body
    for trace_id in request.trace_ids:
        mask = _mask(turn - 1 if trace_id in request.begun else turn)
        data = data.replace(trace_id, (int.from_bytes(trace_id, "big") ^ mask).to_bytes(16, "big"))
    return data


@functools.lru_cache(maxsize=4096)
def _mask(turn: int) -> int:
    return random.Random(f"turn {turn}").getrandbits(128)  # a text, because a number as seed would lose its sign


LOADS = {
    "one trace of 100 spans": functools.partial(whole, 1, 100),
    "ten traces of ten spans": functools.partial(whole, 10, 10),
    "halves of twenty traces": halves,
}
"""Functions that make requests of 100 spans, by name."""


@functools.lru_cache(maxsize=len(LOADS))
def requests(load: str) -> list[Request]:
    """Return the requests of one of `LOADS`; they are made once."""
    return LOADS[load]()


def stream(load: str) -> Iterator[tuple[bytes, int]]:
    """Yield bodies endlessly, without repeating a trace id, each with its number of errors."""
    made = [(request, request.body.count(ERROR.encode())) for request in requests(load)]
    return ((again(request, turn), errors) for turn in itertools.count() for request, errors in made)


def traces(load: str, count: int) -> int:
    """Return the number of traces in the first `count` requests of a stream."""
    first = requests(load)[0]
    return count * (len(first.trace_ids) - len(first.begun)) + len(first.begun)
