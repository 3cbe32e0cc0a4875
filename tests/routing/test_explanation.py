from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.explanation import explain
from otelwp_agent.routing.parser import parse
from otelwp_agent.routing.table import RoutingRule, RoutingTable


def explained(*spans, whole_traces=True):
    """Explain spans of the form (trace, name) of the service `shop`."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = group.scope_spans.add()
    for trace, name in spans:
        scope.spans.add(trace_id=bytes([trace]) * 16, name=name)
    texts = ['resource.attributes["service.name"] == "blog"', 'name == "bad"', 'name == "good"']
    rules = [RoutingRule(f"rule {n}", parse(text, "span", Signal.TRACES), (f"to-{n}",)) for n, text in enumerate(texts)]
    table = RoutingTable(rules, ("rest",))
    return [*explain(table, Signal.TRACES, request.SerializeToString(), Origin(), whole_traces=whole_traces)]


def test_the_rules_up_to_the_one_that_takes_a_span_with_the_facts_they_read():
    (found,) = explained((1, "bad"))
    assert found.targets == ("to-1",)
    assert [(result.rule, result.matches) for result in found.rules] == [("rule 0", False), ("rule 1", True)]
    assert found.rules[0].facts == [('resource.attributes["service.name"]', "shop")]
    assert not found.joined


def test_a_span_that_no_rule_takes():
    (found,) = explained((1, "other"))
    assert found.targets == ("rest",)
    assert [result.matches for result in found.rules] == [False, False, False]


def test_a_span_that_stays_with_its_trace():
    first, second, third = explained((1, "good"), (1, "bad"), (2, "good"))
    assert (first.targets, first.joined) == (("to-1",), True)
    assert (second.targets, second.joined) == (("to-1",), False)
    assert (third.targets, third.joined) == (("to-2",), False)
    assert [found.targets for found in explained((1, "good"), (1, "bad"), whole_traces=False)] == [("to-2",), ("to-1",)]
