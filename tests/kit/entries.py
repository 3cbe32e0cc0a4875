"""The entry of a receiver into pipelines whose stages do what a test says."""

import time

import structlog

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import PipelineHead, ReceiverEntry
from otelwp_agent.telemetry.metrics import Registry


class Stage:
    """A first stage that accepts everything, or refuses with `error`."""

    def __init__(self):
        self.error = None
        self.taken = []

    def consume(self, batch):
        if self.error is not None:
            raise self.error
        self.taken.append(batch)

    def admit(self):
        if self.error is not None:
            raise self.error

    def refusal(self, batch):
        return self.error


def head(name="traces"):
    """Return the head of a pipeline."""
    made = PipelineHead(name, Ledgers())
    made.first = Stage()
    made.admits = [made.first.admit]
    return made


def entry_of(heads, registry=None, **options):
    """Return the entry of a receiver into pipelines."""
    log = structlog.get_logger()
    return ReceiverEntry(heads, "otlp", Signal.TRACES, registry or Registry(), clock=time.monotonic, log=log, **options)


def a_batch(items=2, transport="http", tenant="", receiver="otlp"):
    """Return a batch as a receiver makes it."""
    receipt = Receipt(items)
    return Batch(Signal.TRACES, b"", items, Origin(receiver, transport, tenant), ((receipt, items),))


class Allowance:
    """The allowance of a sender, for at most `most` items."""

    def __init__(self, most):
        self.most, self.items, self.size = most, 0, 0

    def charge(self, items, size):
        if self.items + items > self.most:
            raise Overloaded("limit `items` is reached", retry_after=2.5, reason="items")
        self.items += items
        self.size += size

    def refund(self, items, size):
        self.items -= items
        self.size -= size


def allowed(allowance, items=2):
    """Return a batch whose sender has an allowance."""
    receipt = Receipt(items)
    return Batch(Signal.TRACES, b"xyz", items, Origin("otlp", "http", allowance=allowance), ((receipt, items),))
