"""An exporter that does what a test says, and requests to send through it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.component import ComponentId, Context, Exporter, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import HELD, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.sender import Sender
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXACT = Retry(randomization_factor=0)


class Destination(Exporter):
    """An exporter that does what a test's function says, and remembers which spans it was asked to send, and when."""

    def __init__(
        self, answer: Callable[[list[str]], Awaitable[int]], clock: Callable[[], float], log: object = None
    ) -> None:
        log = log or structlog.get_logger()
        context = Context(ComponentId("test", "one"), Kind.EXPORTER, Registry(), log, clock, NoHost())
        super().__init__(context)
        self.answer = answer
        self.tries: list[tuple[float, list[str]]] = []

    async def export(self, batch: Batch) -> int:
        names = names_in(batch)
        self.tries.append((self.context.clock(), names))
        return await self.answer(names)

    @property
    def times(self) -> list[float]:
        return [round(time, 6) for time, _ in self.tries]

    def metric(self, name: str, **labels: str) -> float:
        return self.context.registry.value(name, **labels)


def a_request(*names: str, padding: int = 0, tenant: str = "") -> Batch:
    """One sender's request, with a receipt of its own."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for name in names:
        spans.add(name=name, trace_state="x" * padding)
    return Batch(
        Signal.TRACES,
        message.SerializeToString(),
        len(names),
        Origin(tenant=tenant),
        [(Receipt(len(names)), len(names))],
    )


def names_in(batch: Batch) -> list[str]:
    message = ExportTraceServiceRequest.FromString(batch.body)
    return [span.name for rs in message.resource_spans for ss in rs.scope_spans for span in ss.spans]


def outcomes(batch: Batch) -> list[tuple[int, int, str]]:
    """(delivered, dropped, reason) of each receipt."""
    return [
        (receipt.count(Outcome.DELIVERED), receipt.count(Outcome.DROPPED), receipt.reason)
        for receipt, _ in batch.shares
    ]


def a_sender(exporter: Destination, queue: Queue | None = None, retry: Retry = EXACT, **options) -> Sender:
    options = {"timeout": 5, "random": lambda: 0.5} | options
    return Sender(exporter, Signal.TRACES, queue=queue or Queue(), retry=retry, **options)


def scripted(*answers: int | BaseException) -> Callable[[list[str]], Awaitable[int]]:
    """Answer each try with the next of `answers`, then take everything."""
    left = list(answers)

    async def answer(_: list[str]) -> int:
        said = left.pop(0) if left else 0
        if isinstance(said, BaseException):
            raise said
        return said

    return answer


async def hang(_: list[str]) -> int:
    await asyncio.get_running_loop().create_future()
    return 0


FOREVER = 1e6


class Letters:
    """Dead letters in memory."""

    def __init__(self, *, fails: int = 0, full: bool = False) -> None:
        self.letters: list[tuple[list[str], str, str, str]] = []
        self.fails = fails
        self.full = full

    def put(self, batch: Batch, *, exporter: str, reason: str, error: str) -> Fate:
        assert all(receipt.pending >= items for receipt, items in batch.shares), "settled too early"
        if self.fails:
            self.fails -= 1
            return Fate.FAILED
        if self.full:
            return Fate.LOST
        self.letters.append((names_in(batch), exporter, reason, error))
        return Fate.KEPT


def a_kept_request(*names: str) -> Batch:
    """A request that a journal has."""
    batch = a_request(*names)
    batch.shares[0][0].claim = HELD
    return batch


def refuse(*poison: str) -> Callable[[list[str]], Awaitable[int]]:
    async def answer(names: list[str]) -> int:
        if set(names) & set(poison):
            raise MalformedError("400")
        return 0

    return answer
