"""A processor or connector alone, between a sender and a catcher for what it forwards."""

from __future__ import annotations

from importlib import import_module

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher, NoHost, messages_of


def build(type_, settings=None, *, kind=Kind.PROCESSOR, clock=lambda: 0.0, name=""):
    """Return a stage with these settings and a catcher behind it."""
    factory = import_module(f"otelwp_agent.{kind.value}.{type_}").FACTORY
    context = Context(
        id=ComponentId(type_, name),
        kind=kind,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=clock,
        host=NoHost(),
        pipeline="traces",
    )
    stage = factory.build(factory.config.model_validate(settings or {}), context)
    catcher = Catcher()
    stage.next = catcher if kind is Kind.PROCESSOR else dict.fromkeys(Signal, catcher)
    if kind is Kind.CONNECTOR:
        stage.choose = lambda _signal, _pipelines: catcher
    return stage, catcher


def batch_of(body, items, signal=Signal.TRACES, origin=None):
    """Return a batch of one request."""
    return Batch(signal, body, items, origin or Origin("otlp", "http"), [(Receipt(items), items)])


def numbered_spans(count, start=0):
    """Return a batch of spans that are named by their number."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(start, start + count):
        scope.spans.add(name=str(number))
    return batch_of(request.SerializeToString(), count)


def names_of(batches):
    """Return the names of the spans of batches, in order."""
    return [span.name for batch in batches for span in messages_of(Signal.TRACES, batch.body)]
