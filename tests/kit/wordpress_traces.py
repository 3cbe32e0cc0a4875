"""Requests of WordPress, captured ones and others, and what the processor `wordpress` makes of them."""

from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.jaeger.from_json import decode as decode_jaeger
from otelwp_agent.codecs.otlp_json import decode
from otelwp_agent.model import projections
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from tests.kit.stages import batch_of, build

DATA = Path(__file__).parents[1] / "data"
CAPTURES = DATA / "captures"
MS = 1_000_000


def load(name):
    """Return a capture as OTLP."""
    data = (CAPTURES / name).read_bytes()
    if name.startswith("jaeger/"):
        return decode_jaeger(data, 0).body()
    return decode(Signal.TRACES, data) if name.endswith(".json") else data


def run(body, settings=None, origin=None):
    """Return what comes out, fully parsed, and the stage."""
    stage, catcher = build("wordpress", settings)
    items = projections.count(Signal.TRACES, body)
    stage.consume(batch_of(body, items, origin=origin or Origin("otlp", "http")))
    (batch,) = catcher.batches
    assert batch.items == projections.count(Signal.TRACES, batch.body) == items
    return ExportTraceServiceRequest.FromString(batch.body), stage


def text(value):
    """Return the value of an attribute as text."""
    return str(getattr(value, value.WhichOneof("value") or "string_value"))


def values(attributes):
    """Return attributes as a dict of texts; no key may be there twice."""
    keys = [each.key for each in attributes]
    assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
    return {each.key: text(each.value) for each in attributes}


class Trace:
    """A request, to which a test adds spans."""

    def __init__(self, resource=None, scope="", copies=1):
        self.request = ExportTraceServiceRequest()
        for _ in range(copies):
            self.group = self.request.resource_spans.add()
            put(self.group.resource.attributes, resource or {"service.name": "shop"})
        self.spans = self.group.scope_spans.add()
        self.spans.scope.name = scope

    def span(self, number, parent=0, attributes=None, **fields):
        span = self.spans.spans.add(
            trace_id=b"t" * 16,
            span_id=number.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            **{"name": "span", "start_time_unix_nano": 1000, "end_time_unix_nano": 1000 + MS, **fields},
        )
        put(span.attributes, attributes or {})
        return span

    def run(self, settings=None, origin=None):
        result, self.stage = run(self.request.SerializeToString(), settings, origin)
        return result

    def spans_after(self, settings=None):
        return self.run(settings).resource_spans[-1].scope_spans[0].spans

    def resource_after(self, settings=None, origin=None):
        return values(self.run(settings, origin).resource_spans[-1].resource.attributes)


def put(attributes, pairs):
    """Add attributes."""
    for key, value in pairs.items():
        pair = attributes.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
