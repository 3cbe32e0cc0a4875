from otelwp_agent.component import ComponentId, Exporter, Processor, Receiver
from otelwp_agent.sending.sender import Sender
from tests.kit.graphs import Pass, Running

CHAIN = """
receivers: {hand: }
processors: {pass: , pass/2: }
connectors: {forward: }
exporters: {sink: }
service:
  pipelines:
    traces/second: {receivers: [forward], processors: [pass/2], exporters: [sink]}
    traces/first: {receivers: [hand], processors: [pass], exporters: [forward]}
"""


async def test_parts_stop_from_the_receivers_to_the_exporters_and_a_pipeline_before_those_it_feeds():
    running = Running()
    graph = await running.go(CHAIN)
    receivers, first, second, connectors, senders, exporters, extensions = graph.stop_order()
    assert [type(part).__mro__[1] for part in (*receivers, *exporters)] == [Receiver, Exporter]
    assert [str(part.context.id) for part in (*first, *second, *connectors)] == ["pass", "pass/2", "forward"]
    assert [type(part) for part in senders] == [Sender]
    assert extensions == []
    assert graph.parts() == {id(part) for rank in graph.stop_order() for part in rank}
    assert not any(isinstance(part, Sender) for part in graph.components())
    await running.stop()


async def test_connectors_are_known_by_the_plan_and_capabilities_by_their_class():
    running = Running()
    graph = await running.go(CHAIN)
    assert [graph.is_connector(ComponentId(name)) for name in ("forward", "sink")] == [True, False]
    assert [str(part.context.id) for part in graph.providers(Pass)] == ["pass/2", "pass"]
    assert graph.providers(Processor) == graph.providers(Pass)
    assert {str(state.id) for state in graph.health()} >= {"sink"}
    await running.stop()
