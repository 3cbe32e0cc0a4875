"""A whole graph under overload, in virtual time: what was accepted arrives at every branch that is not isolated."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from otelwp_agent.component import ComponentConfig, ComponentId, Factory, Kind, Processor
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.environment import Environment
from otelwp_agent.pipeline.graph import Graph
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import run
from tests.kit import graphs
from tests.kit.senders import a_request, names_in

LAYOUTS = {
    "one pipeline": """
        traces/a: {receivers: [hand], processors: [PROCESSORS], exporters: [sink/0, sink/1, sink/2]}
    """,
    "a pipeline for each": """
        traces/a: {receivers: [hand], processors: [PROCESSORS], exporters: [sink/0]}
        traces/b: {receivers: [hand], processors: [PROCESSORS], exporters: [sink/1]}
        traces/c: {receivers: [hand], exporters: [sink/2]}
    """,
    "behind a connector": """
        traces/a: {receivers: [hand], processors: [PROCESSORS], exporters: [forward, sink/0]}
        traces/b: {receivers: [forward], processors: [PROCESSORS], exporters: [sink/1, sink/2]}
    """,
    "pipelines joined and divided": """
        traces/a: {receivers: [hand], exporters: [forward]}
        traces/b: {receivers: [forward], processors: [PROCESSORS], exporters: [sink/0, sink/1]}
        traces/c: {receivers: [forward], processors: [grow], exporters: [sink/2]}
    """,
}
PROCESSORS = {
    "": "",
    "batch": "send_batch_size: 6, timeout: 1s",
    "batch, grow": "send_batch_size: 6, timeout: 1s",
    "grow, batch": "send_batch_size: 4, send_batch_max_size: 4, timeout: 1s",
    "batch, pass": "send_batch_size: 2, send_batch_max_size: 2, timeout: 0s",
    "grow": "",
}
QUEUES = (
    "queue_size: 2, num_consumers: 1",
    "queue_size: 12, sizer: items, num_consumers: 2",
    "max_bytes: 4KiB, num_consumers: 2",
    "queue_size: 4, max_tenant_share: 0.5, num_consumers: 1",
    "queue_size: 3, num_consumers: 1, batch: {min_size: 5, flush_timeout: 1s}",
    "enabled: false, num_consumers: 1",
)
YAML = """
receivers: {hand: }
connectors: {forward: }
processors: {batch: {BATCH}, pass: , grow: }
exporters:
  EXPORTERS
service:
  pipelines:LAYOUT
"""
MODES = st.sampled_from(["fast", "slow", "hang", "refuse"])


class Grow(Processor):
    """Makes batches larger."""

    def consume(self, batch):
        self.next.consume(batch.with_body(batch.body + b"\x7a\x64" + b"x" * 100))  # a field that nobody knows


graphs.FACTORIES[Kind.PROCESSOR, "grow"] = Factory(
    Kind.PROCESSOR, "grow", ComponentConfig, lambda _, context: Grow(context)
)


@dataclass
class Backend:
    """What a sink does, from when on; and what came to it."""

    phases: list[tuple[float, str]]
    got: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, phases):
        """Make one that is so many seconds in each mode, and fast from then on."""
        ends = accumulate(seconds for seconds, _ in phases)
        return cls([(end, mode) for end, (_, mode) in zip(ends, phases, strict=True)])

    async def export(self, batch):
        loop = asyncio.get_running_loop()
        mode = next((mode for until, mode in self.phases if loop.time() < until), "fast")
        if mode == "refuse":
            raise RetryableError("503")
        await asyncio.sleep({"fast": 0.01, "slow": 0.7, "hang": 1e6}[mode])
        self.got.update(names_in(batch))
        return 0


def graph_of(layout, processors, queues, clock):
    exporters = "\n  ".join(
        f"sink/{place}: {{timeout: 5, sending_queue: {{{queue}}}, retry_on_failure: {{max_elapsed_time: 0s}}}}"
        for place, queue in enumerate(queues)
    )
    yaml = YAML.replace("EXPORTERS", exporters).replace("LAYOUT", LAYOUTS[layout])
    yaml = yaml.replace("PROCESSORS", processors).replace("BATCH", PROCESSORS[processors])
    host = SimpleNamespace(ready=True, status="ready", started_at=0.0, components=list)
    return Graph.build(graphs.plan(yaml), Environment(Registry(), structlog.get_logger(), clock, host))


@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(PROCESSORS)),
    st.lists(st.sampled_from(QUEUES), min_size=3, max_size=3),
    st.lists(st.lists(st.tuples(st.floats(0.1, 20), MODES), max_size=3), min_size=3, max_size=3),
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from(["", "", "acme", "shop"]), st.sampled_from([0.0, 0.1, 1.0, 7.0])),
        max_size=60,
    ),
)
def test_what_was_accepted_arrives_once_at_every_branch_that_was_not_isolated(layout, processors, queues, modes, steps):
    async def scenario():
        loop = asyncio.get_running_loop()
        graph = graph_of(layout, processors, queues, loop.time)
        backends = [Backend.of(phases) for phases in modes]
        for place, backend in enumerate(backends):
            graph.exporters[ComponentId("sink", str(place))].export = backend.export
        await graph.start()
        graph.adopt()
        accepted = await send(graph, steps)
        await asyncio.sleep(2000)
        check_arrivals(graph, backends, accepted, counted_apart="forward" not in LAYOUTS[layout])
        check_ledgers(graph)
        drained = await graph.retire(None, loop.time() + 10)
        assert drained.left == 0

    run(scenario())


async def send(graph, steps):
    """Offer requests; return the receipts and names of those that were accepted."""
    entry = graph.receivers[ComponentId("hand")].next[Signal.TRACES]
    accepted = []
    for number, (items, tenant, pause) in enumerate(steps):
        request = a_request(*(f"{number}.{item}" for item in range(items)), tenant=tenant)
        receipt, _ = request.shares[0]
        try:
            entry.admit()
            entry.consume(request)
        except RetryableError:
            assert receipt.pending == items, "who refuses keeps nothing"
        else:
            accepted.append((receipt, names_in(request)))
        await asyncio.sleep(pause)
    return accepted


def check_arrivals(graph, backends, accepted, *, counted_apart):
    """`counted_apart`: no branch has several exporters behind it, for all of which it loses at once."""
    names = {name for _, request in accepted for name in request}
    registry, missing, all_lost = graph.environment.registry, 0, 0
    for place, backend in enumerate(backends):
        lost = registry.value("otelcol_exporter_enqueue_failed_spans", exporter=f"sink/{place}")
        note(f"sink {place}: {len(backend.got)} of {len(names)} arrived, {lost} lost")
        assert set(backend.got.values()) <= {1}
        assert set(backend.got) <= names
        missing, all_lost = missing + len(names) - len(backend.got), all_lost + lost
        if counted_apart:
            assert len(backend.got) + lost == len(names), "neither delivered nor counted as lost"
        assert not lost or any(mode in {"hang", "refuse"} for _, mode in backend.phases), "slow is not stuck"
    assert (missing > 0) == (all_lost > 0)
    for receipt, request in accepted:
        assert receipt.pending == 0
        everywhere = all(name in backend.got for backend in backends for name in request)
        assert (receipt.worst is Outcome.DELIVERED) == everywhere


def check_ledgers(graph):
    assert graph.in_flight() == 0
    for head in graph.heads.values():
        total = head.total
        assert total.accepted == sum(total.settled)
    for state in graph.health():
        assert state.healthy, "all is well again"


def test_a_tenant_whose_share_is_full_is_refused_and_others_are_not():
    async def scenario():
        loop = asyncio.get_running_loop()
        graph = graph_of("one pipeline", "batch", [QUEUES[3]] * 3, loop.time)
        for exporter in graph.exporters.values():
            exporter.gate.clear()
        await graph.start()
        graph.adopt()
        entry = graph.receivers[ComponentId("hand")].next[Signal.TRACES]

        def send(tenant):
            request = a_request(*"abcdef", tenant=tenant)
            entry.admit()
            entry.consume(request)

        for _ in range(4):  # two in each queue, two in `batch`
            send("loud")
        for _ in range(3):
            with pytest.raises(Overloaded) as refused:
                send("loud")
            assert refused.value.capacity.share == "loud"
        send("quiet")
        for exporter in graph.exporters.values():
            exporter.gate.set()
        await asyncio.sleep(1)
        send("loud")
        await graph.retire(None, loop.time() + 10)
        assert [len(exporter.batches) for exporter in graph.exporters.values()] == [6, 6, 6]

    run(scenario())


def test_a_processor_that_refuses_what_was_admitted_loses_it_visibly():
    """A processor of a third party may refuse for reasons of its own; then there is no other way."""

    class Odd(Processor):
        def consume(self, batch):
            raise PermanentError("no", reason="odd")

    async def scenario():
        loop = asyncio.get_running_loop()
        graph = graph_of("a pipeline for each", "pass", [QUEUES[0]] * 3, loop.time)
        await graph.start()
        graph.adopt()
        head = graph.heads["traces/b"]
        head.first = Odd(head.first.context)
        head.first.next = graph.senders[ComponentId("sink", "1"), Signal.TRACES]
        request = a_request("a")
        graph.receivers[ComponentId("hand")].next[Signal.TRACES].consume(request)
        await asyncio.sleep(1)
        assert [len(exporter.batches) for exporter in graph.exporters.values()] == [1, 0, 1]
        receipt, _ = request.shares[0]
        assert (receipt.pending, receipt.worst, receipt.reason) == (0, Outcome.DROPPED, "odd")
        await graph.retire(None, loop.time() + 1)

    PROCESSORS["pass"] = ""
    run(scenario())
