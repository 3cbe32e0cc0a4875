"""OTLP → Zipkin v2: the conversion of each field, by every way of writing a span."""

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.codecs.zipkin import encoding, fragments, from_proto
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.to_json import JsonEncoder
from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder
from otelwp_agent.errors import MalformedError
from tests.kit.zipkin import SPAN, START, TRACE, put

NANOSECONDS = START * 1000


def request(*, resource=None, scope=None, **fields):
    """Return a request of one span."""
    made = ExportTraceServiceRequest()
    spans = made.resource_spans.add()
    put(spans.resource.attributes, {"service.name": "shop"} if resource is None else resource)
    within = spans.scope_spans.add()
    if scope:
        put(within.scope.attributes, scope.pop("attributes", {}))
        within.scope.name, within.scope.version = scope["name"], scope.get("version", "")
    span = within.spans.add(
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        start_time_unix_nano=NANOSECONDS,
        end_time_unix_nano=NANOSECONDS + 5999,
        kind=1,
        name="page",
    )
    attributes = fields.pop("attributes", {})
    for key, value in attributes.items() if isinstance(attributes, dict) else attributes:
        put(span.attributes, {key: value})
    for name in ("status", "events", "links"):
        given = fields.pop(name, None)
        if name == "status" and given:
            span.status.code, span.status.message = given
        for each in (given or ()) if name != "status" else ():
            inner = each.pop("attributes", {})
            put(getattr(span, name).add(**each).attributes, inner)
    for name, value in fields.items():
        setattr(span, name, value)
    return made.SerializeToString()


def encoded(**fields):
    """Return the one span as JSON; it is the same each time, and as protobuf."""
    body = request(**fields)
    encoder = JsonEncoder("unknown_service")
    bodies = {encoder.encode(body).body for _ in range(4)}
    assert len(bodies) == 1
    (span,) = orjson.loads(bodies.pop())
    (message,) = pb.ListOfSpans.FromString(ProtoEncoder("unknown_service").encode(body).body).spans
    as_proto = from_proto._span(message)
    for key, value in span.items():
        assert as_proto[key] == ({"serviceName": "", "port": 0, **value} if "Endpoint" in key else value)
    return span


def tags_of(**fields):
    return encoded(**fields).get("tags", {})


def test_a_span():
    assert encoded(kind=2, parent_span_id=b"p" * 8, attributes={"a": "b"}) == {
        "traceId": TRACE,
        "parentId": "70" * 8,
        "id": SPAN,
        "name": "page",
        "kind": "SERVER",
        "timestamp": START,
        "duration": 5,
        "localEndpoint": {"serviceName": "shop"},
        "tags": {"a": "b"},
    }


def test_what_is_empty_is_left_out():
    assert encoded().keys() == {"traceId", "id", "name", "timestamp", "duration", "localEndpoint"}
    assert encoded(resource={}, parent_span_id=bytes(8)).keys() == encoded().keys()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(0, None), (1, None), (2, "SERVER"), (3, "CLIENT"), (4, "PRODUCER"), (5, "CONSUMER")],
)
def test_kinds(kind, expected):
    assert encoded(kind=kind).get("kind") == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        ('quo"te\\ \n \x00 é 😀', 'quo"te\\ \n \x00 é 😀'),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-7, "-7"),
        ((1 << 63) - 1, str((1 << 63) - 1)),
        (300, "300"),
        (1.5, "1.5"),
        (2.0, "2"),
        (float("inf"), "+Inf"),
        ([1, "a", True], '[1,"a",true]'),
        ({"k": [1.5]}, '{"k":[1.5]}'),
        ("J" * 300, "J" * 300),
        ("x" * 20_000, "x" * 20_000),
    ],
)
def test_values_are_text(value, text):
    assert tags_of(attributes={"k": value, "z": "SELECT 1 JOIN"}) == {"k": text, "z": "SELECT 1 JOIN"}


def test_bytes_are_base64_and_nothing_is_empty():
    made = ExportTraceServiceRequest.FromString(request(attributes={"none": ""}))
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.attributes[0].value.Clear()
    span.attributes.add(key="raw").value.bytes_value = b"\xff\x00"
    body = made.SerializeToString()
    (found,) = orjson.loads(JsonEncoder("x").encode(body).body)
    assert found["tags"] == {"none": "", "raw": "/wA="}


def test_resource_and_scope_become_tags_and_the_nearest_wins():
    tags = tags_of(
        resource={"service.name": "shop", "host.name": "web", "a": "resource", "b": "resource"},
        scope={"name": "lib", "version": "2", "attributes": {"short": True, "b": "scope"}},
        attributes={"a": "span", "c": "1"},
    )
    assert tags == {
        "host.name": "web",
        "a": "span",
        "b": "scope",
        "short": "true",
        "otel.scope.name": "lib",
        "otel.library.name": "lib",
        "otel.scope.version": "2",
        "otel.library.version": "2",
        "c": "1",
    }


def test_of_a_key_that_is_there_twice_the_last_counts():
    twice = [("a", "1"), ("b", "2"), ("a", "3")]
    assert tags_of(attributes=twice) == {"a": "3", "b": "2"}
    body = request(attributes=twice, resource={"service.name": "shop", "b": "1"})
    assert JsonEncoder("x").encode(body).body.count(b'"a":') == 1
    (message,) = pb.ListOfSpans.FromString(ProtoEncoder("x").encode(body).body).spans
    assert [(tag.key, tag.value) for tag in message.tags] == [(b"b", b"2"), (b"a", b"3")]


@pytest.mark.parametrize(("resource", "service"), [({}, "unknown_service"), ({"service.name": ""}, "unknown_service")])
def test_services_without_a_name_get_one(resource, service):
    assert encoded(resource=resource)["localEndpoint"] == {"serviceName": service}


@pytest.mark.parametrize(
    ("status", "attributes", "tags"),
    [
        (None, {}, {}),
        ((1, "ignored"), {}, {"otel.status_code": "OK"}),
        ((2, "boom"), {}, {"otel.status_code": "ERROR", "error": "boom"}),
        ((2, ""), {}, {"otel.status_code": "ERROR", "error": ""}),
        ((2, "boom"), {"error": "other", "a": "b"}, {"otel.status_code": "ERROR", "error": "boom", "a": "b"}),
        ((0, "ignored"), {"error": False}, {}),
        (None, {"error": "false", "a": "b"}, {"a": "b"}),
        ((1, ""), {"error": "x"}, {"otel.status_code": "OK"}),
        ((9, "x"), {}, {}),
    ],
)
def test_status(status, attributes, tags):
    assert tags_of(status=status, attributes=attributes) == tags


def test_what_a_resource_says_of_an_error_is_none():
    resource = {"service.name": "shop", "error": "x", "network.local.address": "10.0.0.1"}
    found = encoded(resource=resource, attributes={"a": "b"})
    assert found["tags"] == {"network.local.address": "10.0.0.1", "a": "b"}
    assert found["localEndpoint"] == {"serviceName": "shop", "ipv4": "10.0.0.1"}


CLIENT, SERVER = 3, 2


@pytest.mark.parametrize(
    ("kind", "attributes", "endpoint"),
    [
        (CLIENT, {"peer.service": "db", "server.address": "x"}, {"serviceName": "db"}),
        (CLIENT, {"server.address": "x", "net.peer.name": "y"}, {"serviceName": "x"}),
        (CLIENT, {"net.peer.name": "y", "db.name": "z"}, {"serviceName": "y"}),
        (
            CLIENT,
            {"server.address": "x", "network.peer.address": "10.0.0.1", "network.peer.port": 3306},
            {"serviceName": "x", "ipv4": "10.0.0.1", "port": 3306},
        ),
        (CLIENT, {"network.peer.address": "::1", "network.peer.port": 80}, {"ipv6": "::1", "port": 80}),
        (CLIENT, {"network.peer.address": "/run/db.sock"}, {"serviceName": "/run/db.sock"}),
        (CLIENT, {"net.sock.peer.addr": "10.0.0.2", "net.sock.peer.port": "81"}, {"ipv4": "10.0.0.2", "port": 81}),
        (CLIENT, {"server.socket.domain": "d", "server.socket.address": "1.1.1.1"}, {"serviceName": "d"}),
        (CLIENT, {"server.socket.address": "1.1.1.1"}, {"ipv4": "1.1.1.1"}),
        (CLIENT, {"net.sock.peer.name": "n", "peer.hostname": "h"}, {"serviceName": "n"}),
        (CLIENT, {"peer.hostname": "h", "peer.address": "a"}, {"serviceName": "h"}),
        (CLIENT, {"peer.address": "a", "db.name": "z"}, {"serviceName": "a"}),
        (4, {"db.name": "z"}, {"serviceName": "z"}),
        (CLIENT, {"peer.service": ""}, None),
        (CLIENT, {"network.peer.address": "10.0.0.1", "network.peer.port": 99999}, {"ipv4": "10.0.0.1"}),
        (SERVER, {"server.address": "me", "db.name": "z"}, None),
        (SERVER, {"peer.service": "web"}, {"serviceName": "web"}),
        (SERVER, {"network.peer.address": "10.9.9.9"}, {"ipv4": "10.9.9.9"}),
        (CLIENT, {"a": "b"}, None),
    ],
)
def test_remote_endpoints_by_their_rank(kind, attributes, endpoint):
    found = encoded(kind=kind, attributes={"first": "1", **attributes})
    assert found.get("remoteEndpoint") == endpoint
    assert found["tags"].keys() == {"first", *attributes}


def test_where_a_span_was_becomes_its_local_endpoint():
    attributes = {"network.local.address": "10.0.0.1", "network.local.port": 80}
    assert encoded(attributes=attributes)["localEndpoint"] == {"serviceName": "shop", "ipv4": "10.0.0.1", "port": 80}


def test_flags_come_back():
    found = encoded(attributes={"zipkin.shared": True, "zipkin.debug": "true", "a": "b"})
    assert (found["shared"], found["debug"], found["tags"]) == (True, True, {"a": "b"})


def test_events_become_annotations():
    typed = {"s": "x", "i": 1, "d": 2.0, "b": True, "l": [1]}
    found = encoded(
        events=[
            {"time_unix_nano": NANOSECONDS + 1999, "name": "plain"},
            {"time_unix_nano": NANOSECONDS, "name": 'e"', "attributes": typed},
            {"time_unix_nano": NANOSECONDS, "name": "d", "dropped_attributes_count": 2},
            {"time_unix_nano": NANOSECONDS, "name": '"quoted"'},
            {"time_unix_nano": NANOSECONDS, "name": "n", "attributes": {"x": float("nan"), "m": {"k": "v"}}},
        ]
    )
    assert found["annotations"] == [
        {"timestamp": START + 1, "value": "plain"},
        {"timestamp": START, "value": '"e\\"": {"s":"x","i":1,"d":2.0,"b":true,"l":[1]}'},
        {"timestamp": START, "value": '"d": {"otel.dropped_attributes_count":2}'},
        {"timestamp": START, "value": '"\\"quoted\\"": {}'},
        {"timestamp": START, "value": '"n": {"x":"NaN","m":{"k":"v"}}'},
    ]


def test_what_else_becomes_tags():
    tags = tags_of(
        trace_state="ot=th:8",
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
        attributes={"a": "b"},
    )
    assert tags == {
        "a": "b",
        "w3c.tracestate": "ot=th:8",
        "otel.dropped_attributes_count": "1",
        "otel.dropped_events_count": "2",
        "otel.dropped_links_count": "3",
    }


def test_links_and_flags_are_lost():
    link = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    assert encoded(links=[link], flags=0x301, attributes={"a": "b"}) == encoded(attributes={"a": "b"})


@pytest.mark.parametrize(
    ("start", "end", "timestamp", "duration"),
    [
        (NANOSECONDS, NANOSECONDS, START, 1),
        (NANOSECONDS + 900, NANOSECONDS + 2134, START, 1),
        (NANOSECONDS, NANOSECONDS + 999, START, 1),
        (NANOSECONDS, NANOSECONDS + 10**12, START, 10**9),
        (NANOSECONDS, NANOSECONDS - 1, START, 1),
        (NANOSECONDS, 0, START, None),
        (0, NANOSECONDS, None, START),
        (0, 0, None, None),
    ],
)
def test_times_are_whole_microseconds_and_durations_at_least_one(start, end, timestamp, duration):
    found = encoded(start_time_unix_nano=start, end_time_unix_nano=end)
    assert (found.get("timestamp"), found.get("duration")) == (timestamp, duration)


def test_a_time_that_was_not_there_is_left_out_again():
    found = encoded(attributes={"otel.zipkin.absentField.startTime": True})
    assert "timestamp" not in found
    assert "tags" not in found


@pytest.mark.parametrize("ids", [{"trace_id": b""}, {"trace_id": bytes(16)}, {"span_id": b"x"}, {"span_id": bytes(8)}])
@pytest.mark.parametrize("encoder", [JsonEncoder, ProtoEncoder])
def test_spans_without_ids_are_left_out_and_counted(ids, encoder):
    good = request()
    made = encoder("x").encode(request(**ids) + good)
    assert (made.spans, made.left_out) == (1, 1)
    assert made.body == encoder("x").encode(good).body


def test_text_that_is_not_utf_8_is_repaired():
    body = (
        request(attributes={"k": "value"}, status=(2, "why"))
        .replace(b"value", b"val\xffe")
        .replace(b"page", b"p\xffge")
    )
    (found,) = orjson.loads(JsonEncoder("x").encode(body.replace(b"why", b"w\xffy")).body)
    assert (found["name"], found["tags"]) == (
        "p\ufffdge",
        {"k": "val\ufffde", "otel.status_code": "ERROR", "error": "w\ufffdy"},
    )


@pytest.mark.parametrize(("number", "good", "bad"), [(7, b"\x07", b"\x87"), (300, b"\xac\x02", b"\xac\x82")])
def test_a_value_that_does_not_parse_is_empty(number, good, bad):
    body = request(attributes={"key": number}).replace(b"\x18" + good, b"\x18" + bad)
    (found,) = orjson.loads(JsonEncoder("x").encode(body).body)
    assert found["tags"] == {"key": ""}


@pytest.mark.parametrize("encoder", [JsonEncoder, ProtoEncoder])
def test_what_does_not_parse_is_malformed(encoder):
    bodies = [
        b"\xff",
        request(attributes={"key": "value"}).replace(b"\x0a\x03key", b"\x0a\x33key"),
        request(status=(2, "why")).replace(b"\x12\x03why", b"\x12\x30why"),
    ]
    for body in bodies:
        with pytest.raises(MalformedError):
            encoder("x").encode(body)


@pytest.mark.parametrize("encoder", [JsonEncoder, ProtoEncoder])
def test_an_empty_request(encoder):
    made = encoder("x").encode(b"")
    assert (made.spans, made.left_out, made.body) == (0, 0, b"[]" if encoder is JsonEncoder else b"")


def test_memories_have_bounds(monkeypatch):
    monkeypatch.setattr(fragments, "MAX_ENTRIES", 8)
    monkeypatch.setattr(fragments, "MAX_SHAPES", 3)
    monkeypatch.setattr(encoding, "MAX_TAILS_SIZE", 500)
    encoder = JsonEncoder("x")
    encoder._names._bound = 4
    for turn in range(3):
        for number in range(30):
            for _ in range(5):
                body = request(name=f"n{number}", attributes={f"k{number}": f"v{number}", "same": "same"})
                (found,) = orjson.loads(encoder.encode(body).body)
                assert found["name"] == f"n{number}"
                assert found["tags"] == {f"k{number}": f"v{number}", "same": "same"}, turn
    (context,) = encoder._contexts.values()
    assert len(encoder._tags) <= 8
    assert len(encoder._names) <= 4
    assert max(map(len, context.shapes)) <= 3
    assert any(context.tails)
    assert sum(len(tail) + len(text) for tails in context.tails for tail, text in tails.items()) <= 500
