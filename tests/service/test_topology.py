import json
from types import SimpleNamespace

import structlog

from otelwp_agent.component import ComponentHealth, Kind
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.control import Control
from otelwp_agent.service.topology import add_topology
from otelwp_agent.transport.http_messages import Head, Request
from tests.kit.graphs import Running

GRAPH = """
receivers: {hand: }
exporters: {sink: , sink/2: }
service: {pipelines: {logs: {receivers: [hand], exporters: [sink, sink/2]}}}
"""


async def test_the_graph_is_described_with_figures_and_positions():
    running = Running()
    await running.go(GRAPH)
    states = [
        ComponentHealth(Kind.EXPORTER, "sink", healthy=False, message="refused", details={"data_type": "logs"}),
        ComponentHealth(None, "journal", healthy=True, details={"bytes": 7}),
    ]
    host = SimpleNamespace(status="ready", started_at=5.0, components=lambda: states, stall=lambda: None)
    control = Control(structlog.get_logger())
    add_topology(control, lambda: running.graph, host, running.registry)
    running.hand.next[Signal.LOGS].consume(Batch(Signal.LOGS, b"", 3, Origin("hand", "test"), [(Receipt(3), 3)]))
    found = json.loads(control.handler("/graph")(Request(Head("GET", "/graph", {}))).body)
    assert (found["status"], found["started_at"], found["stalled"]) == ("ready", 5.0, "")
    (pipeline,) = found["pipelines"]
    assert (pipeline["id"], pipeline["receivers"], pipeline["exporters"]) == ("logs", ["hand"], ["sink", "sink/2"])
    assert pipeline["ledger"]["accepted"] == 3
    components = {(each["kind"], each["id"]): each for each in found["components"]}
    assert components["receivers", "hand"]["figures"]["accepted"] == 3
    assert components["receivers", "hand"]["line"] == 2
    sink = components["exporters", "sink"]
    assert (sink["healthy"], sink["message"], sink["line"]) == (False, "refused", 3)
    assert components["exporters", "sink/2"]["healthy"]
    assert found["service"] == [{"id": "journal", "healthy": True, "message": "", "details": {"bytes": 7}}]
    await running.stop()
