"""Backends in memory for a sender that divides batches among them."""

import asyncio
from collections import Counter

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.component import Backend, BackendGroup, ComponentId, Context, Exporter, ExporterConfig, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.balancing import by_trace
from otelwp_agent.routing.rendezvous import Rendezvous
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost
from tests.kit.senders import a_request, names_in

FAST = Retry(initial_interval="0.1s", max_interval="0.1s", randomization_factor=0, max_elapsed_time=0)


class Receiving(Exporter):
    """A backend in memory: it accepts everything while it is `up`, after `seconds`."""

    def __init__(self, context, spans):
        super().__init__(context)
        self.up = True
        self.seconds = 0.0
        self.error = RetryableError("refused", reason="connection_refused")
        self.spans = spans
        self.closed = False

    async def export(self, batch):
        up = self.up
        await asyncio.sleep(self.seconds)
        if not up:
            raise self.error
        self.spans += names_in(batch)
        return 0

    async def shutdown(self):
        self.closed = True


class Group(BackendGroup):
    """Backends by name, chosen by the names of spans, which stand for traces."""

    def __init__(self, clock, names, queue=None, retry=FAST):
        super().__init__(self.context_of("balance", clock))
        self.settings = ExporterConfig(sending_queue=queue or Queue(), retry_on_failure=retry)
        self.every = {}
        self.spans = {}
        """What the backends of each name have accepted, closed ones included."""
        self.use(*names)

    def context_of(self, name, clock):
        registry = self.context.registry if hasattr(self, "context") else Registry()
        return Context(ComponentId("test", name), Kind.EXPORTER, registry, structlog.get_logger(), clock, NoHost())

    def use(self, *names):
        for name in names:
            if name not in self.every or self.every[name].exporter.closed:
                self.every[name] = Backend(
                    name, Receiving(self.context_of(name, self.context.clock), self.spans.setdefault(name, []))
                )
        self.backends = {name: self.every[name] for name in names}
        for listener in tuple(self.listeners):
            listener()

    def divide(self, batch, names):
        return by_trace(batch, Rendezvous(names).choose)

    async def released(self, backend):
        await backend.exporter.shutdown()

    def __getitem__(self, name):
        return self.every[name].exporter


def traces(*numbers, spans=2):
    """Return a batch of traces; the names of their spans are `trace/span`."""
    parts = []
    for number in numbers:
        part = a_request(*[f"{number}/{span}" for span in range(spans)])
        message = ExportTraceServiceRequest.FromString(part.body)
        for span in message.resource_spans[0].scope_spans[0].spans:
            span.trace_id = (number + 1).to_bytes(16)
        parts.append(Batch(Signal.TRACES, message.SerializeToString(), spans, Origin(), part.shares))
    return merge(parts)


def everything(group):
    return Counter(span for spans in group.spans.values() for span in spans)


def expected(numbers, spans=2):
    return Counter(f"{number}/{span}" for number in numbers for span in range(spans))


async def settled(*batches):
    """Wait until every item of the batches is settled."""
    while any(receipt.pending for batch in batches for receipt, _ in batch.shares):
        await asyncio.sleep(0.05)
