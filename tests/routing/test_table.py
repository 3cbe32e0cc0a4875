"""The order of rules, copies, defaults, and what a table remembers."""

from __future__ import annotations

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import encode
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.facts import Facts
from otelwp_agent.routing.parser import parse
from otelwp_agent.routing.table import LONGEST_REMEMBERED, REMEMBERED, RoutingRule, RoutingTable


def rule(text, *targets, copies=False, context="span"):
    return RoutingRule(text, parse(text, context, Signal.TRACES), targets, copies)


def resource(**attributes):
    pairs = [pb.KeyValue(key=key.encode(), value=encode(value)) for key, value in attributes.items()]
    return pb.Resource(attributes=pairs).SerializeToString()


def span(**fields):
    return pb.RoutedSpan(**fields)


def targets(table, of_resource, item, origin=None):
    facts = Facts(origin or Origin())
    return table.targets(table.match(facts, table.know(facts, of_resource), item))


def test_the_first_rule_that_matches_takes_an_item():
    table = RoutingTable([rule('name == "a"', "one"), rule('HasPrefix(name, "a")', "two")], ("rest",))
    assert targets(table, b"", span(name=b"a")) == ("one",)
    assert targets(table, b"", span(name=b"ab")) == ("two",)
    assert targets(table, b"", span(name=b"b")) == ("rest",)


def test_a_copied_item_goes_on():
    table = RoutingTable(
        [rule('HasPrefix(name, "a")', "copy", copies=True), rule('name == "ab"', "own", "copy")], ("rest",)
    )
    assert targets(table, b"", span(name=b"ab")) == ("copy", "own")
    assert targets(table, b"", span(name=b"a")) == ("copy", "rest")


def test_a_rule_that_the_resource_decides_ends_the_search():
    rules = [rule('name == "a"', "one"), rule('resource.attributes["s"] == 1', "two"), rule("true", "three")]
    table = RoutingTable(rules, ())
    facts = Facts(Origin())
    known = table.know(facts, resource(s=1))
    assert (known.mask, [bit for bit, _ in known.open]) == (0b010, [1])
    assert targets(table, resource(s=1), span(name=b"a")) == ("one",)
    assert targets(table, resource(s=1), span(name=b"b")) == ("two",)
    assert targets(table, resource(s=2), span(name=b"b")) == ("three",)


def test_decisions_are_remembered_for_each_resource_request_and_item():
    rules = [
        rule('request.tenant == "acme" and resource.attributes["s"] == "x" and name == "a"', "all"),
        rule('request.tenant == "acme"', "tenant"),
    ]
    table = RoutingTable(rules, ("rest",))
    for _ in range(2):
        assert targets(table, resource(s="x"), span(name=b"a"), Origin("", "", "acme")) == ("all",)
        assert targets(table, resource(s="y"), span(name=b"a"), Origin("", "", "acme")) == ("tenant",)
        assert targets(table, resource(s="x"), span(name=b"b"), Origin("", "", "acme")) == ("tenant",)
        assert targets(table, resource(s="x"), span(name=b"a"), Origin("", "", "other")) == ("rest",)


def test_a_fact_with_many_values_is_never_remembered():
    table = RoutingTable([rule("duration_ms > 10", "slow")], ("rest",))
    for milliseconds in (5, 15, 9, 11):
        found = targets(table, b"", span(end_time_unix_nano=milliseconds * 10**6))
        assert found == (("slow",) if milliseconds > 10 else ("rest",))
    assert not table._items


def test_memory_is_bounded():
    table = RoutingTable([rule('attributes["a"] == "b" or resource.attributes["c"] == 1', "one")], ())
    for number in range(REMEMBERED + 100):
        item = span(attributes=[pb.KeyValue(key=b"a", value=encode(f"value {number}"))])
        targets(table, resource(c=1, n=number), item)
    assert len(table._items) <= REMEMBERED
    assert len(table._resources) <= REMEMBERED
    before = len(table._items), len(table._resources)
    long = "x" * LONGEST_REMEMBERED
    targets(table, resource(c=1, long=long), span(attributes=[pb.KeyValue(key=b"a", value=encode(long))]))
    assert (len(table._items), len(table._resources)) == before
