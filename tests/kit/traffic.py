"""Traffic for samplers: seeded requests of traces, each at its time, whole or in parts."""

from __future__ import annotations

import random

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECOND = 1_000_000_000
BEGIN = 1_795_184_645 * SECOND
"""2026-11-20T14:24:05Z."""


def request(spans, service="shop"):
    """Return a serialized request of `spans`: dicts of the fields of a span, `attributes` a dict of texts."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    _put(resource.resource.attributes, {"service.name": service})
    scope = resource.scope_spans.add()
    for each in spans:
        fields = dict(each)
        span = scope.spans.add()
        _put(span.attributes, fields.pop("attributes", {}))
        span.status.code = 2 if fields.pop("error", False) else 0
        for name, value in fields.items():
            setattr(span, name, value)
    return message.SerializeToString()


def _put(attributes, values):
    for key, value in values.items():
        attributes.add(key=key).value.string_value = value


def traffic(seconds, rate, routes=12, seed=1):
    """Yield `(nanoseconds, body, spans)` in the order of time; a request's last span ends just then.

    Routes after Zipf; 4 % errors, some slow traces, one trace in eight in two requests, its root in the second.
    """
    dice = random.Random(seed)
    weights = [1 / (number + 1) for number in range(routes)]
    now = BEGIN
    requests = []
    while True:
        now += round(dice.expovariate(rate) * SECOND)
        if now > BEGIN + seconds * SECOND:
            break
        trace_id = dice.randbytes(16)
        route = f"/r{dice.choices(range(routes), weights)[0]}"
        lasted = round(dice.lognormvariate(-2, 0.8) * SECOND)
        failed = dice.random() < 0.04
        ids = [dice.randbytes(8) for _ in range(dice.randrange(1, 6))]
        spans = [
            {
                "trace_id": trace_id,
                "span_id": ids[number],
                "parent_span_id": ids[0] if number else b"",
                "name": f"GET {route}",
                "start_time_unix_nano": now - lasted,
                "end_time_unix_nano": now,
                "error": failed and not number,
                "attributes": {"http.route": route},
            }
            for number in range(len(ids))
        ]
        if len(spans) > 1 and dice.random() < 0.125:
            later = now + round(dice.random() * SECOND)
            for span in spans[:1]:
                span["end_time_unix_nano"] = later
            requests += [(now, request(spans[1:]), len(spans) - 1), (later, request(spans[:1]), 1)]
        else:
            requests.append((now, request(spans), len(spans)))
    yield from sorted(requests)
