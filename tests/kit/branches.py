"""Branches of a fan-out that accept and refuse what a test says."""

import time

import structlog

from otelwp_agent.capacity import Capacity
from otelwp_agent.errors import Overloaded
from otelwp_agent.pipeline.fan_out import FanOut


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
