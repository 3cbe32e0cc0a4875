"""Tails with volatile values are written from templates, with the same result as without."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.zipkin import templates
from otelwp_agent.codecs.zipkin.to_json import JsonEncoder
from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder
from tests.kit.zipkin import SPAN, START, TRACE, put


@pytest.fixture(autouse=True)
def _soon_volatile(monkeypatch):
    monkeypatch.setattr(templates, "MANY", 3)


def request(*spans, kind=3, status=None):
    """Return a request of spans with these attributes."""
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    put(resource.resource.attributes, {"service.name": "shop", "host.name": "web"})
    scope = resource.scope_spans.add()
    for attributes in spans:
        span = scope.spans.add(
            trace_id=bytes.fromhex(TRACE),
            span_id=bytes.fromhex(SPAN),
            start_time_unix_nano=START * 1000,
            end_time_unix_nano=START * 1000 + 5000,
            kind=kind,
            name="page",
        )
        put(span.attributes, attributes)
        if status:
            span.status.code, span.status.message = status
    return made.SerializeToString()


def page(number, **more):
    return {"url.path": "/", "url.full": f"http://shop/?p={number}", "wp.blog": 1, **more}


def only_templates(encoder):
    """Return the non-empty templates; only one kind has some."""
    (found,) = [each for context in encoder._contexts.values() for each in context.templates if each.heads]
    return found


@pytest.mark.parametrize("of", [JsonEncoder, ProtoEncoder])
@pytest.mark.parametrize("status", [None, (2, "boom")])
def test_a_volatile_value_goes_into_a_template(of, status):
    encoder = of("x")
    for number in range(40):
        body = request(page(number), status=status)
        assert encoder.encode(body).body == of("x").encode(body).body
    found = only_templates(encoder)
    assert [key for _, key in found.heads] == ["url.full"]
    assert len(found._known) == 1


def test_several_volatile_values():
    encoder = JsonEncoder("x")
    for number in range(60):
        body = request(page(number, user=f"u{number}", order=number * 1000))
        (span,) = orjson.loads(encoder.encode(body).body)
        assert span["tags"] == {
            "host.name": "web",
            "url.path": "/",
            "url.full": f"http://shop/?p={number}",
            "wp.blog": "1",
            "user": f"u{number}",
            "order": str(number * 1000),
        }
    assert {key for _, key in only_templates(encoder).heads} == {"url.full", "user", "order"}


def test_the_name_of_the_peer_is_not_volatile():
    encoder = JsonEncoder("x")
    for number in range(40):
        (span,) = orjson.loads(encoder.encode(request({"server.address": f"db{number}", "a": "b"})).body)
        assert span["remoteEndpoint"] == {"serviceName": f"db{number}"}
    assert not any(each.heads for context in encoder._contexts.values() for each in context.templates)


def test_repeated_values_are_cached():
    encoder = JsonEncoder("x")
    for number in range(400):
        encoder.encode(request(page(number % 4)))
    (context,) = encoder._contexts.values()
    assert len(context.tails[3]) == 4


@pytest.mark.parametrize(
    "value",
    [
        "x" * 150,  # longer than one byte tells
        "\n\x08url.full\x12\x03\n\x01x",
        "J\x12\n\x08url.full\x12\x06\n\x04same",
        'quo"te\\',
        "é",
        "",
        7,
        True,
        -1,
        1.5,
    ],
)
@pytest.mark.parametrize("of", [JsonEncoder, ProtoEncoder])
def test_odd_values_in_a_template(of, value):
    encoder = of("x")
    for number in range(20):
        encoder.encode(request(page(number)))
    for attributes in (page(0) | {"url.full": value}, page(0) | {"url.path": value}, {"url.full": value}):
        for _ in range(3):
            body = request(attributes)
            assert encoder.encode(body).body == of("x").encode(body).body


def test_templates_are_bounded(monkeypatch):
    monkeypatch.setattr(templates, "MAX_TEMPLATES", 4)
    encoder = JsonEncoder("x")
    for number in range(200):
        encoder.encode(request(page(number) | {"wp.blog": number % 20}))
    assert len(only_templates(encoder)._known) <= 4


keys = st.sampled_from(["url.full", "url.path", "user", "error", "server.address", "peer.service"])
values = st.text('abJ\n\x12\x08é"', max_size=5) | st.integers(0, 300) | st.sampled_from(["same"] * 5)


@given(st.lists(st.dictionaries(keys, values, max_size=4), min_size=8, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_they_write_what_is_written_without_them(spans, chance):
    for of in (JsonEncoder, ProtoEncoder):
        encoder = of("x")
        for _ in range(3):
            for attributes in spans:
                body = bytearray(request(attributes | {"user": str(chance.getrandbits(20))}))
                expected = of("x").encode(bytes(body))
                assert encoder.encode(bytes(body)) == expected
