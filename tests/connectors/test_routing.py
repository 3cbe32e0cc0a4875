from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.component import Carries, Kind
from otelwp_agent.connectors.routing import Config
from otelwp_agent.errors import ConfigError, MalformedError, Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import Catcher
from tests.kit.graphs import Running, plan, until
from tests.kit.stages import build

TABLE = {
    "table": [
        {"context": "request", "condition": 'request.tenant == "acme"', "pipelines": ["traces/acme", "logs/acme"]},
        {"context": "span", "condition": 'name == "bad"', "pipelines": ["traces/bad"], "action": "copy"},
        {"condition": 'attributes["service.name"] == "shop"', "pipelines": ["traces/shop"]},
    ],
    "default_pipelines": ["traces/rest"],
}


def body_of(*spans):
    """Return a request with spans of the form "service/name"."""
    request = ExportTraceServiceRequest()
    for number, (service, _, name) in enumerate(span.partition("/") for span in spans):
        group = request.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = service
        group.scope_spans.add().spans.add(name=name, trace_id=number.to_bytes(16), span_id=number.to_bytes(8))
    return request.SerializeToString()


def batch_of(*spans, tenant=""):
    return Batch(
        Signal.TRACES, body_of(*spans), len(spans), Origin("otlp", "http", tenant), [(Receipt(len(spans)), len(spans))]
    )


def names(batches):
    return [
        f"{group.resource.attributes[0].value.string_value}/{span.name}"
        for batch in batches
        for group in ExportTraceServiceRequest.FromString(batch.body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def connector(settings=None):
    """Return the connector and a catcher for each set of pipelines."""
    stage, _ = build("routing", settings or TABLE, kind=Kind.CONNECTOR)
    catchers = {}
    stage.choose = lambda _signal, pipelines: catchers.setdefault(",".join(pipelines), Catcher())
    return stage, catchers


def test_each_item_goes_to_its_pipelines():
    stage, catchers = connector()
    batch = batch_of("shop/good", "blog/bad", "blog/good", "shop/bad")
    stage.consume(batch)
    assert {name: names(catcher.batches) for name, catcher in catchers.items()} == {
        "traces/shop": ["shop/good"],
        "traces/bad,traces/rest": ["blog/bad"],
        "traces/rest": ["blog/good"],
        "traces/bad,traces/shop": ["shop/bad"],
    }
    registry = stage.context.registry
    counted = {
        name: registry.value("otelwp_connector_routing_items", connector="routing", pipeline=name)
        for name in ("traces/shop", "traces/bad", "traces/rest")
    }
    assert counted == {"traces/shop": 2, "traces/bad": 2, "traces/rest": 2}
    assert registry.value("otelwp_connector_routing_unmatched_items", connector="routing") == 1


def test_a_request_of_one_tenant_is_forwarded_unread():
    stage, catchers = connector()
    batch = batch_of("shop/bad", tenant="acme")
    stage.consume(batch)
    assert catchers["traces/acme"].batches == [batch]


def test_nothing_is_accepted_if_one_pipeline_is_full():
    stage, catchers = connector()
    stage.choose(Signal.TRACES, ["traces/shop"]).error = Overloaded("full", retry_after=3)
    batch = batch_of("blog/good", "shop/good")
    assert isinstance(stage.refusal(batch), Overloaded)
    with pytest.raises(Overloaded, match="full"):
        stage.consume(batch)
    assert not catchers["traces/rest"].batches
    assert batch.shares[0][0].pending == 2


def test_a_part_that_is_refused_for_good_is_dropped_and_the_others_go_on():
    stage, catchers = connector()
    refusing = stage.choose(Signal.TRACES, ["traces/shop"])
    refusing.refusal = lambda _batch: None
    refusing.error = MalformedError("broken")
    batch = batch_of("blog/good", "shop/good")
    stage.consume(batch)
    catchers["traces/rest"].batches[0].settle(Outcome.DELIVERED)
    receipt = batch.shares[0][0]
    assert (receipt.pending, receipt.count(Outcome.DROPPED), receipt.reason) == (0, 1, "malformed")


def test_items_without_destination_are_filtered_out():
    stage, catchers = connector({"table": TABLE["table"]})
    batch = batch_of("blog/good", "shop/good")
    stage.consume(batch)
    assert batch.shares[0][0].count(Outcome.FILTERED) == 1
    assert names(catchers["traces/shop"].batches) == ["shop/good"]


def test_rules_of_other_signals_are_left_out():
    stage, catchers = connector()
    batch = Batch(Signal.LOGS, b"", 0, Origin("otlp", "http", "acme"), [])
    stage.consume(batch)
    assert list(catchers) == ["logs/acme"]


def test_the_headers_that_rules_read_are_stored_by_a_journal():
    rule = {"context": "request", "condition": 'request["X-Region"] == "eu"', "pipelines": ["traces/eu"]}
    stage, _ = connector({"table": [rule]})
    assert stage.headers == ["x-region"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"condition": "name ==", "context": "span"}, "the condition is invalid"),
        ({"condition": "true", "statement": "route()"}, "not both"),
        ({"statement": "set(x)"}, "route"),
        ({"context": "datapoint"}, "context"),
        ({"pipelines": []}, "pipelines"),
    ],
)
def test_invalid_rules(row, said):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"table": [{"pipelines": ["traces/x"], **row}]})
    assert said in str(caught.value)


def test_a_rule_that_is_never_reached():
    rows = [
        {"condition": 'attributes["a"] == 1', "pipelines": ["traces/x"]},
        {"condition": 'attributes["a"] == 1', "pipelines": ["traces/y"]},
        {"condition": "true", "pipelines": ["traces/x"]},
        {"condition": 'attributes["b"] == 1', "pipelines": ["traces/y"]},
        {"condition": 'attributes["b"] == 1', "pipelines": ["logs/y"]},
    ]
    found = [path for path, _ in Config.model_validate({"table": rows}).contradictions()]
    assert found == [("table", 1), ("table", 3)]
    rows[0]["action"] = rows[2]["action"] = "copy"
    assert not [*Config.model_validate({"table": rows}).contradictions()]


def test_encoded_bodies_pass_only_rules_about_the_request():
    assert Config.model_validate({"table": TABLE["table"][:1]}).unfit_for(Carries.ENCODED) is None
    unfit = Config.model_validate(TABLE).unfit_for(Carries.ENCODED)
    assert unfit is not None
    assert unfit.setting == ("table", 1)


GRAPH = """
receivers: {hand: }
exporters: {sink/a: , sink/b: , sink/rest: }
connectors:
  routing:
    default_pipelines: [traces/rest]
    table:
      - {context: request, condition: 'request.receiver == "hand"', action: copy, pipelines: [traces/a]}
      - {context: span, condition: 'name == "x"', pipelines: [traces/b]}
service:
  pipelines:
    traces: {receivers: [hand], exporters: [routing]}
    traces/a: {receivers: [routing], exporters: [sink/a]}
    traces/b: {receivers: [routing], exporters: [sink/b]}
    traces/rest: {receivers: [routing], exporters: [sink/rest]}
"""


async def test_in_a_graph_each_pipeline_keeps_its_own_sums():
    running = Running()
    graph = await running.go(GRAPH)
    receipt = running.hand.receive()
    await until(lambda: receipt.pending == 0)
    assert receipt.worst is Outcome.DELIVERED
    assert [len(sink.batches) for sink in (running.sink_a, running.sink_b, running.sink_rest)] == [1, 0, 1]
    totals = {name: (head.total.accepted, head.total.in_flight) for name, head in graph.heads.items()}
    assert totals == {"traces": (1, 0), "traces/a": (1, 0), "traces/b": (0, 0), "traces/rest": (1, 0)}
    await running.go(GRAPH.replace('"hand"', '"other"'))
    receipt = running.hand.receive()
    await until(lambda: receipt.pending == 0)
    assert [len(sink.batches) for sink in (running.sink_a, running.sink_rest)] == [1, 2]
    await running.stop()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pipelines: [traces/b]", "pipelines: [traces/c]", "there is no pipeline `traces/c`"),
        ("traces/b: {receivers: [routing]", "traces/b: {receivers: [hand]", "does not have `routing` as receiver"),
        ("pipelines: [traces/b]", "pipelines: [traces/a]", "connector `routing` sends nothing here"),
        ("exporters: [sink/b]", "exporters: [routing]", "circulate forever"),
    ],
)
def test_the_plan_checks_the_destinations(old, new, said):
    with pytest.raises(ConfigError, match=said):
        plan(GRAPH.replace(old, new))
