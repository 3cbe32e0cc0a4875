from __future__ import annotations

import pytest

from otelwp_agent.component import ComponentId
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.outlets import outlets_behind
from tests.kit.graphs import Running

GRAPH = """
receivers: {hand: }
processors: {pass: , compression: }
exporters: {sink/a: , sink/b: , otlp_http: {endpoint: "http://127.0.0.1:9"}}
connectors: {forward: , forward/inner: }
service:
  pipelines:
    traces: {receivers: [hand], exporters: [forward]}
    traces/next: {receivers: [forward], processors: [pass], exporters: [sink/a]}
    traces/inner: {receivers: [forward/inner], exporters: [sink/b]}
"""


@pytest.mark.parametrize(
    ("old", "new", "exporters", "movable"),
    [
        ("", "", ["sink/a"], True),
        ("exporters: [sink/a]", "exporters: [sink/a, sink/b]", ["sink/a", "sink/b"], False),
        ("exporters: [sink/a]", "exporters: [forward/inner]", ["sink/b"], False),
        ("receivers: [forward],", "receivers: [forward, hand],", ["sink/a"], False),
        ("[pass], exporters: [sink/a]", "[compression], exporters: [otlp_http]", ["otlp_http"], False),
    ],
)
async def test_the_exporters_behind_a_pipeline_and_whether_their_batches_may_move(old, new, exporters, movable):
    graph = GRAPH.replace(old, new, 1)
    if "[forward/inner]" not in new:
        graph = graph.replace("    traces/inner: {receivers: [forward/inner], exporters: [sink/b]}\n", "")
    running = Running()
    await running.go(graph)
    found = outlets_behind(running.graph, ComponentId("forward"))[Signal.TRACES]["traces/next"]
    assert [str(sender.exporter.context.id) for sender in found.exporters] == exporters
    assert found.movable is movable
    await running.stop()
