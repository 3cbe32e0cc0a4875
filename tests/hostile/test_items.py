"""Attacks with 20 MiB of empty items: the decoded size has a budget, which is checked before decoding."""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile import bodies, wire
from tests.hostile.attack import posted, prepared
from tests.hostile.bodies import gzip, nested, repeated

JSON, THRIFT = wire.JSON, wire.THRIFT
GZIP = "Content-Encoding: gzip"
SPANS_BEFORE, SPANS_AFTER = '{"resourceSpans":[{"scopeSpans":[{"spans":[', "]}]}]}"


def otlp(make, component="otlp"):
    return posted(component, "/v1/traces", make)


def four_times(make):
    """Return an attack: four requests at the same time to the receiver with full validation."""

    @prepared(make)
    def attack(target, body):
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(wire.post, target.port("otlp/full"), "/v1/traces", body, wire.PROTOBUF)

    return attack


def packed(make):
    """Return an attack: one OTLP request compressed with gzip, 20 KB as sent."""
    return posted("otlp", "/v1/traces", lambda: gzip(make(), 1), wire.PROTOBUF, GZIP)


def json(component, path, *parts):
    return posted(component, path, functools.partial(repeated, *parts), JSON)


@prepared(lambda: gzip(repeated('{"resourceSpans":[', "{}", "]}")[: 4 * bodies.MIB - 1000] + b"{}]}", 9))
def datagrams(target, body):
    """Send 100 datagrams that each inflate to 4 MiB of empty objects."""
    import socket

    assert len(body) < 64 * 1024
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(100):
            sock.sendto(body, ("127.0.0.1", target.port("datagram", "udp")))


FULL = {
    "spans": bodies.valid_spans,
    "groups": bodies.groups,
    "groups_in_a_span": bodies.groups_in_a_span,
    "nested_groups": bodies.nested_groups,
    "nested_values": bodies.nested_values,
    "wide_nested_values": bodies.wide_nested_values,
    "packed_spans": bodies.packed_spans,
    "empty_spans": bodies.empty_spans,
    "empty_attributes": bodies.empty_attributes,
}
"""Bodies for a receiver with `validation: full`."""

ATTACKS = {
    **{f"full_{name}": otlp(make, "otlp/full") for name, make in FULL.items()},
    "full_spans_at_once": four_times(bodies.valid_spans),
    "full_groups_at_once": four_times(bodies.groups_in_a_span),
    "otlp_groups": otlp(bodies.groups),
    "otlp_empty_spans": otlp(bodies.empty_spans),
    "otlp_empty_scopes": otlp(bodies.empty_scopes),
    "otlp_empty_resources": otlp(bodies.empty_resources),
    "otlp_empty_attributes": otlp(bodies.empty_attributes),
    "otlp_nested_values": otlp(bodies.nested_values),
    "otlp_empty_spans_gzip": packed(bodies.empty_spans),
    "otlp_empty_scopes_gzip": packed(bodies.empty_scopes),
    "otlp_empty_resources_gzip": packed(bodies.empty_resources),
    "otlp_json_resources": json("otlp", "/v1/traces", '{"resourceSpans":[', "{}", "]}"),
    "otlp_json_spans": json("otlp", "/v1/traces", SPANS_BEFORE, "{}", SPANS_AFTER),
    "otlp_json_lists": json("otlp", "/v1/traces", '{"resourceSpans":[', "[]", "]}"),
    "otlp_json_undeclared": json("otlp", "/v1/traces", '{"x":[', "{}", "]}"),
    "otlp_json_nested_lists": posted("otlp", "/v1/traces", lambda: nested("[", "]"), JSON),
    "otlp_json_nested_objects": posted("otlp", "/v1/traces", lambda: nested('{"a":', "}"), JSON),
    "otlp_json_number": posted("otlp", "/v1/traces", lambda: bodies.long_number('{"x":', "}"), JSON),
    "otlp_json_spans_gzip": posted(
        "otlp", "/v1/traces", lambda: gzip(repeated(SPANS_BEFORE, "{}", SPANS_AFTER), 1), JSON, GZIP
    ),
    "zipkin_v2_objects": json("zipkin", "/api/v2/spans", "[", "{}", "]"),
    "zipkin_v2_lists": json("zipkin", "/api/v2/spans", "[", "[]", "]"),
    "zipkin_v2_empty_spans_protobuf": posted("zipkin", "/api/v2/spans", lambda: b"\x0a\x00" * 9_900_000),
    "zipkin_v1_objects": json("zipkin", "/api/v1/spans", "[", "{}", "]"),
    "zipkin_v1_lists": json("zipkin", "/api/v1/spans", "[", "[]", "]"),
    "zipkin_v1_thrift": posted("zipkin", "/api/v1/spans", lambda: b"\x0c\x01\x3f\xff\xff" + bytes(20_900_000), THRIFT),
    "jaeger_json_traces": json("jaeger_json", "/api/traces", '{"data":[', "{}", "]}"),
    "jaeger_json_spans": json("jaeger_json", "/api/traces", '{"data":[{"traceID":"1","spans":[', "{}", "]}]}"),
    "jaeger_json_lists": json("jaeger_json", "/api/traces", '{"data":[', "[]", "]}"),
    "jaeger_thrift_bools": posted("jaeger", "/api/traces", bodies.thrift_bools, THRIFT),
    "jaeger_thrift_spans": posted("jaeger", "/api/traces", bodies.thrift_spans, THRIFT),
    "jaeger_thrift_nested": posted("jaeger", "/api/traces", bodies.thrift_nested, THRIFT),
    "datagrams": datagrams,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_agent_withstands(name, survives):
    survives(name, ATTACKS[name])
