from __future__ import annotations

import pytest

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import encode
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.attributes.matching import Matcher, Properties, Severities

SPAN_PROPERTIES = [{"span_names": ["a"]}, {"span_kinds": ["SPAN_KIND_SERVER"]}]
LOG_PROPERTIES = [{"log_bodies": ["a"]}, {"log_severity_texts": ["a"]}, {"log_severities": Severities(9)}]


def attributes(**pairs):
    return [pb.KeyValue(key=key.encode(), value=encode(value)) for key, value in pairs.items()]


def resource(**pairs):
    return pb.Resource(attributes=attributes(**{key.replace("_", "."): value for key, value in pairs.items()}))


def in_group(properties, of=None, scope=None):
    return Matcher(Properties(**properties), Signal.TRACES).group(of or pb.Resource(), scope or pb.Scope())


def span(name="", kind=0):
    return pb.SpanAttributes(name=name.encode(), kind=kind)


def record(body=None, severity="", number=0):
    made = pb.LogAttributes(severity_text=severity.encode(), severity_number=number)
    if body is not None:
        made.body = encode(body)
    return made


@pytest.mark.parametrize(
    ("properties", "service", "expected"),
    [
        ({"services": ["shop", "blog"]}, "blog", True),
        ({"services": ["shop"]}, "shop2", False),
        ({"services": ["shop"]}, None, False),
        ({"services": ["shop"], "regexp": True}, "my shop 2", True),
        ({"services": ["^shop"], "regexp": True}, "my shop", False),
        ({}, None, True),
    ],
)
def test_services(properties, service, expected):
    assert in_group(properties, resource(service_name=service) if service else None) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([("host.type", "n1")], True),
        ([("host.type", None)], True),
        ([("host.type", "n2")], False),
        ([("host.type", "n1"), ("host.name", None)], False),
    ],
)
def test_resources_must_all_match(wanted, expected):
    assert in_group({"resources": wanted}, resource(host_type="n1")) == expected


@pytest.mark.parametrize(
    ("libraries", "scope", "expected"),
    [
        ([("lib", None)], pb.Scope(name=b"lib"), True),
        ([("lib", None)], pb.Scope(name=b"lib", version=b"1"), True),
        ([("lib", "")], pb.Scope(name=b"lib"), True),
        ([("lib", "")], pb.Scope(name=b"lib", version=b"1"), False),
        ([("lib", "1")], pb.Scope(name=b"lib"), False),
        ([("lib", "1")], pb.Scope(name=b"lib", version=b"1"), True),
        ([("other", None), ("lib", "1")], pb.Scope(name=b"lib", version=b"1"), True),
        ([("other", None)], pb.Scope(name=b"lib"), False),
    ],
)
def test_libraries(libraries, scope, expected):
    assert in_group({"libraries": libraries}, scope=scope) == expected


@pytest.mark.parametrize(
    ("properties", "item", "expected"),
    [
        ({"span_names": ["a", "b"]}, span("b"), True),
        ({"span_names": ["a"]}, span("ab"), False),
        ({"span_names": ["a"], "regexp": True}, span("ab"), True),
        ({"span_kinds": ["SPAN_KIND_SERVER"]}, span(kind=2), True),
        ({"span_kinds": ["SPAN_KIND_SERVER"]}, span(kind=3), False),
        ({"span_kinds": ["SERVER$"], "regexp": True}, span(kind=2), True),
        ({"span_kinds": ["SPAN_KIND_UNSPECIFIED"]}, span(kind=77), True),
        ({"span_names": ["a"], "span_kinds": ["SPAN_KIND_SERVER"]}, span("a", 3), False),
        *((properties, span("a"), False) for properties in [*LOG_PROPERTIES, {"metric_names": ["a"]}]),
    ],
)
def test_spans(properties, item, expected):
    assert Matcher(Properties(**properties), Signal.TRACES).item(item) == expected


@pytest.mark.parametrize(
    ("properties", "item", "expected"),
    [
        ({"log_bodies": ["a"]}, record("a"), True),
        ({"log_bodies": ["AUTH.*"], "regexp": True}, record("see AUTH failed"), True),
        ({"log_bodies": ["1"]}, record(1), False),
        ({"log_bodies": [""]}, record(), False),
        ({"log_severity_texts": ["debug.*"], "regexp": True}, record(severity="debug2"), True),
        ({"log_severity_texts": ["debug"]}, record(severity="info"), False),
        ({"log_severities": Severities(9)}, record(number=9), True),
        ({"log_severities": Severities(9)}, record(number=8), False),
        ({"log_severities": Severities(9)}, record(number=0), False),
        ({"log_severities": Severities(9, undefined=True)}, record(number=0), True),
        ({"log_severities": Severities(9), "log_bodies": ["a"]}, record("b", number=9), False),
        *((properties, record("a", "a", 9), False) for properties in [*SPAN_PROPERTIES, {"metric_names": ["a"]}]),
    ],
)
def test_log_records(properties, item, expected):
    assert Matcher(Properties(**properties), Signal.LOGS).item(item) == expected


def test_metrics():
    metric = pb.MetricAttributes(name=b"requests")
    assert Matcher(Properties(metric_names=["requests"]), Signal.METRICS).item(metric)
    assert Matcher(Properties(metric_names=["^req"], regexp=True), Signal.METRICS).item(metric)
    assert not Matcher(Properties(metric_names=["req"]), Signal.METRICS).item(metric)
    for properties in [*SPAN_PROPERTIES, *LOG_PROPERTIES]:
        assert not Matcher(Properties(**properties), Signal.METRICS).item(metric)


@pytest.mark.parametrize(
    ("wanted", "regexp", "expected"),
    [
        ([("env", "dev")], False, True),
        ([("env", None)], False, True),
        ([("env", "prod")], False, False),
        ([("gone", None)], False, False),
        ([("n", 200)], False, True),
        ([("n", "200")], False, False),
        ([("n", 200.0)], False, False),
        ([("on", True)], False, True),
        ([("on", 1)], False, False),
        ([("list", ["a", 1])], False, True),
        ([("env", "dev"), ("n", 201)], False, False),
        ([("env", "^d")], True, True),
        ([("n", "^20")], True, True),
        ([("on", "true")], True, True),
        ([("env", "x")], True, False),
    ],
)
def test_attributes_match_by_type_and_value_all_of_them(wanted, regexp, expected):
    matcher = Matcher(Properties(attributes=wanted, regexp=regexp), Signal.TRACES)
    assert matcher.attributes(attributes(env="dev", n=200, on=True, list=["a", 1])) == expected
