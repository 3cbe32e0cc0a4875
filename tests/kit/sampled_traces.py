"""A sampler between a sender and a catcher, and traces for it."""

from __future__ import annotations

import random

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.traces import read
from otelwp_agent.testing import FakeClock, messages_of
from tests.kit.stages import build

NAME = "otelwp_processor_adaptive_sampling_"


SITES = {"sites": {"rules": [{"keep": 0.25}]}}
"""Keeps a quarter of everything, regardless of traffic: the same in every agent."""


CHANCE = {"always_keep": {each: {"enabled": False} for each in ("errors", "slow", "first_seen", "releases", "debug")}}


QUARTER = 3 << 54
"""The threshold of that."""


START = 1_760_000_000_000_000_000


def sampler(clock=None, **config):
    return build("adaptive_sampling", config or {"target": {"spans_per_second": 100}}, clock=clock or FakeClock(100.0))


def trace_id(number, randomness=None):
    """Return a trace id; `randomness` is the first byte of its randomness."""
    drawn = random.Random(number).randbytes(16)
    return drawn if randomness is None else drawn[:9] + bytes([randomness]) + drawn[10:]


def ids(index):
    return (index + 1).to_bytes(8, "big")


def span(trace, index=0, parent=None, *, error=False, lasts=1.0, **fields):
    fields = {
        "trace_id": trace,
        "span_id": ids(index),
        "parent_span_id": b"" if parent is None else ids(parent),
        "name": f"span {index}",
        "start_time_unix_nano": START,
        "end_time_unix_nano": START + int(lasts * 1e9),
        **fields,
    }
    return fields | ({"status": {"code": 2}} if error else {})


def tree(trace, size=3, **root):
    """Return a trace, its root last."""
    return [span(trace, index, 0) for index in range(1, size)] + [span(trace, **root)]


def text(key, value):
    return {"key": key, "value": {"string_value": value}}


def body_of(spans, service="shop", **resource):
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in {"service.name": service, "wordpress.site.host": "shop.example", **resource}.items():
        group.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    scope = group.scope_spans.add()
    for each in spans:
        scope.spans.add(**each)
    return request.SerializeToString()


def batch_of(spans, origin=None, **resource):
    return Batch(
        Signal.TRACES,
        body_of(spans, **resource),
        len(spans),
        origin or Origin("otlp", "http"),
        [(Receipt(len(spans)), len(spans))],
    )


def receipt_of(batch):
    return batch.shares[0][0]


def spans_of(catcher):
    return [each for batch in catcher.batches for each in messages_of(Signal.TRACES, batch.body)]


def kept_ids(catcher):
    return {each.trace_id for each in spans_of(catcher)}


def attributes_of(each):
    return {attribute.key: attribute.value.string_value for attribute in each.attributes}


def deliver(catcher):
    """Settle the forwarded batches, and check that the shares of each match its content."""
    for batch in catcher.batches:
        assert sum(items for _, items in batch.shares) == batch.items == len(messages_of(Signal.TRACES, batch.body))
        batch.settle(Outcome.DELIVERED)


def read_items(body):
    request, pieces = read(body)
    return [item for place in range(len(pieces)) for item in request.spans(place)]


def look(stage, catcher):
    """Make the stage read its clock: an empty request passes unchanged."""
    stage.consume(batch_of([]))
    catcher.batches = [batch for batch in catcher.batches if batch.items]


def metric(stage, name, **labels):
    return stage.context.registry.value(NAME + name, **labels)
