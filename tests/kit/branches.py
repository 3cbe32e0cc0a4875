"""Branches of a fan-out that accept and refuse what a test says."""

import time

import structlog

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.fan_out import FanOut
from tests.kit.claims import RecordedClaim
from tests.kit.senders import a_request, names_in


class Branch:
    """Accepts everything, or refuses with `error`; `late` is raised by `consume` alone, after the branch was asked."""

    def __init__(self, error=None, late=None):
        self.error = error
        self.late = late
        self.taken = []

    def refusal(self, batch):
        return self.error

    def consume(self, batch):
        error = self.late or (None if batch.admitted else self.error)
        if error is not None:
            raise error
        self.taken.append(batch)


class Queue(Branch):
    """An exporter's queue that is full as long as `is_full`; the capacity says so."""

    def __init__(self, name="exporters/x", clock=time.monotonic, isolate_after=5.0):
        super().__init__()
        self.lost = 0
        self.capacity = Capacity(name, clock, isolate_after=isolate_after, lost=self._lose)
        self.is_full = False

    def _lose(self, items):
        self.lost += items

    def refusal(self, batch):
        if not self.is_full:
            return None
        self.capacity.refuse()
        return Overloaded("full", reason="queue_full", capacity=self.capacity)

    def consume(self, batch):
        if not batch.admitted and (refusal := self.refusal(batch)):
            raise refusal
        self.taken.append(batch)

    def free(self, *, progress=True):
        self.is_full = False
        self.capacity.freed(progress=progress)


def fan(branches, names="abcdefgh", clock=time.monotonic, patience=1.0):
    """Return a fan-out into `branches`."""
    log = structlog.get_logger()
    return FanOut(branches, names[: len(branches)], clock=clock, log=log, patience=patience)


def a_batch(items=3):
    """Return a receipt, and a batch of one request with it."""
    receipt = Receipt(items)
    return receipt, Batch(Signal.TRACES, b"bytes", items, Origin(), ((receipt, items),))


def journaled(*names, done=()):
    """Return a request that a journal has, with a span for each of `names`."""
    one = a_request(*names)
    one.shares[0][0].claim = RecordedClaim(done)
    return one


def names_of(branch):
    """Return the names of the spans of each batch that a branch has accepted."""
    return [names_in(each) for each in branch.taken]
