"""A processor or connector alone, between a sender and something that catches what it hands on; and time that jumps."""

from __future__ import annotations

import asyncio
import selectors
from importlib import import_module

import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.otlp import full

_SPINES = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
}


class NoHost:
    ready = True

    def components(self):
        return ()


class Catcher:
    """Keeps batches, or refuses them: `errors` are raised one after the other, `error` each time.

    With `waiting` (a list), whoever hands over has to wait for the future that is put there.
    """

    answers_late = False

    def __init__(self):
        self.batches = []
        self.waiting = None
        self.error = None
        self.errors = []

    def admit(self):
        pass

    def refusal(self, batch):
        return next(iter(self.errors), self.error)

    def consume(self, batch, answer=None, rejected=None):
        error = self.errors.pop(0) if self.errors else self.error
        if error is not None:
            raise error
        self.batches.append(batch)
        if self.waiting is None or answer is None:
            return None
        told = asyncio.get_running_loop().create_future()
        self.waiting.append((told, answer))
        return told

    @property
    def items(self):
        return sum(batch.items for batch in self.batches)


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
    return stage, catcher


def batch_of(body, items, signal=Signal.TRACES, origin=None):
    """Return a batch of one request."""
    return Batch(signal, body, items, origin or Origin("otlp", "http"), [(Receipt(items), items)])


def items_of(signal, body):
    """Return the items of a request (of metrics: the metrics), fully parsed, in order."""
    resources, scopes, items = _SPINES[signal]
    return [
        item
        for resource in getattr(full(signal, body), resources)
        for scope in getattr(resource, scopes)
        for item in getattr(scope, items)
    ]


class _InstantSelector(selectors.DefaultSelector):
    """Never waits: moves the clock instead."""

    now = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events:
            assert timeout is not None, "everything waits, and nothing will ever happen"
            self.now += max(0.0, timeout)
        return events


class _FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.fake = _InstantSelector()
        super().__init__(self.fake)

    def time(self):
        return self.fake.now


def run(coroutine):
    """Run a coroutine on a loop whose clock jumps to the next timer as soon as nothing else is left to do."""
    with asyncio.Runner(loop_factory=_FakeTimeLoop) as runner:
        return runner.run(coroutine)
