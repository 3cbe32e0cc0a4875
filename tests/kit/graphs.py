"""Components whose strings a test pulls, and graphs made of them from YAML."""

import asyncio
import time
from types import SimpleNamespace

from otelwp_agent.component import ComponentConfig, Exporter, ExporterConfig, Factory, Kind, Processor, Receiver
from otelwp_agent.components import Catalog
from otelwp_agent.config.blocks import Queue
from otelwp_agent.config.load import Source, load
from otelwp_agent.errors import StartError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.environment import Environment
from otelwp_agent.pipeline.graph import Graph
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry


class HandConfig(ComponentConfig):
    label: str = ""
    """Anything; another label is another configuration."""
    fails: bool = False
    """Fail to start."""


class Hand(Receiver):
    """A receiver that a test hands batches to."""

    def __init__(self, config, context):
        super().__init__(context)
        self.config = config
        self.life = []

    async def start(self):
        self.life.append("start")
        if self.config.fails:
            raise StartError(f"receivers/{self.context.id}: told to fail")

    async def shutdown(self):
        self.life.append("shutdown")

    def receive(self, items=1, signal=Signal.TRACES):
        receipt = Receipt(items)
        body = b"\n\x04\x12\x02" + b"\x12\x00"  # one resource, one scope, one empty item
        self.next[signal].consume(Batch(signal, body, items, Origin(str(self.context.id), "hand"), ((receipt, items),)))
        return receipt


class Pass(Processor):
    """A processor that hands on, unless a test holds it back."""

    def __init__(self, config, context):
        super().__init__(context)
        self.held = None
        self.life = []

    def consume(self, batch):
        if self.held is None:
            self.next.consume(batch)
        else:
            self.held.append(batch)

    async def shutdown(self):
        self.life.append("shutdown")
        for batch in self.held or ():
            self.next.consume(batch)
        self.held = None


class SinkConfig(ExporterConfig, HandConfig):
    sending_queue: Queue = Queue(num_consumers=2)
    """The queue before it."""
    timeout: float = 5.0
    """Seconds a try."""


class Sink(Exporter):
    """An exporter that keeps what it gets; `gate` holds it back, `error` makes it fail."""

    def __init__(self, config, context):
        super().__init__(context)
        self.config = config
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None
        self.failed = 0
        self.life = []

    async def start(self):
        self.life.append("start")
        if self.config.fails:
            raise StartError(f"exporters/{self.context.id}: told to fail")

    async def shutdown(self):
        self.life.append("shutdown")

    async def export(self, batch):
        await self.gate.wait()
        if self.error is not None:
            self.failed += 1
            raise self.error
        self.batches.append(batch)
        return 0


FACTORIES = {
    (Kind.RECEIVER, "hand"): Factory(Kind.RECEIVER, "hand", HandConfig, Hand),
    (Kind.PROCESSOR, "pass"): Factory(Kind.PROCESSOR, "pass", HandConfig, Pass),
    (Kind.EXPORTER, "sink"): Factory(Kind.EXPORTER, "sink", SinkConfig, Sink),
}


class TestCatalog(Catalog):
    __test__ = False

    def names(self, kind):
        return sorted({*super().names(kind), *(type_ for of, type_ in FACTORIES if of is kind)})

    def get(self, kind, type_):
        return FACTORIES.get((kind, type_)) or super().get(kind, type_)


def plan(yaml):
    return make_plan(load([Source.parse(f"yaml:{yaml}")]), TestCatalog())


class Running:
    """A graph, and those it is reloaded to."""

    def __init__(self, clock=time.monotonic):
        self.registry = Registry()
        self.clock = clock
        host = SimpleNamespace(ready=True, status="ready", started_at=0.0, components=list)
        self.environment = Environment(self.registry, logging.get(), clock, host)
        self.graph = None

    async def go(self, yaml):
        before = self.graph
        graph = Graph.build(plan(yaml), self.environment, before)
        await graph.start()
        graph.adopt()
        self.graph = graph
        if before is not None:
            await before.retire(graph, self.clock() + 60)
        return graph

    def __getattr__(self, name):
        """Return a component by its id: `running.sink`, `running.sink_2` for `sink/2`."""
        graph = self.__dict__["graph"]
        wanted = name.replace("_", "/")
        for table in (graph.receivers, graph.exporters):
            for identifier, component in table.items():
                if str(identifier) == wanted:
                    return component
        for (_, identifier), component in graph.processors.items():
            if str(identifier) == wanted:
                return component
        raise AttributeError(name)

    async def stop(self, seconds=60):
        return await self.graph.retire(None, self.clock() + seconds)


async def until(condition, seconds=60):
    """Wait until `condition()` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
