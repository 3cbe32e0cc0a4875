"""Zipkin's spans → OTLP: the conversion of each field, and the repair of invalid ones."""

import json

import pytest

from otelwp_agent.codecs.zipkin import from_json
from otelwp_agent.errors import MalformedError
from tests.kit.zipkin import NOW, SPAN, START, TRACE, attributes_of, decoded, request_of, span, spans_of


def only(made, **options):
    """Return the converted span, and the repairs."""
    (found,) = spans_of([made], **options)
    return found, decoded([made], **options).traces.repairs


def test_a_regular_span():
    (resource,) = request_of([span(kind="CLIENT", parentId="00000000000000ab", tags={"a": "1"})]).resource_spans
    assert attributes_of(resource.resource) == {"service.name": "shop"}
    (scope,) = resource.scope_spans
    assert not scope.HasField("scope")
    (found,) = scope.spans
    assert (found.trace_id.hex(), found.span_id.hex(), found.parent_span_id.hex()) == (TRACE, SPAN, "00000000000000ab")
    assert (found.name, found.kind) == ("page", 3)
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (START * 1000, (START + 160_188) * 1000)
    assert attributes_of(found) == {"a": "1"}
    assert decoded([span()]).traces.repairs == {}


def test_spans_are_grouped_by_service_and_scope():
    spans = [
        span(id=f"{number:016x}", localEndpoint={"serviceName": service}, tags={"otel.scope.name": scope})
        for number, (service, scope) in enumerate([("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")], start=1)
    ]
    request = request_of(spans)
    assert [
        (attributes_of(each.resource)["service.name"], scope.scope.name, [item.span_id[-1] for item in scope.spans])
        for each in request.resource_spans
        for scope in each.scope_spans
    ] == [("a", "x", [1, 4]), ("a", "y", [3]), ("b", "x", [2])]


def test_tags_of_a_resource_become_its_attributes_again():
    tags = {
        "host.name": "web",
        "service.version": "2",
        "service.name": "shop",
        "hostess": "no",
        "otel.library.name": "l",
    }
    (resource,) = request_of([span(tags=tags)]).resource_spans
    assert attributes_of(resource.resource) == {"service.name": "shop", "host.name": "web", "service.version": "2"}
    assert resource.scope_spans[0].scope.name == "l"
    assert attributes_of(resource.scope_spans[0].spans[0]) == {"hostess": "no"}


@pytest.mark.parametrize(
    ("fields", "kind", "repairs"),
    [
        ({"kind": "SERVER"}, 2, {}),
        ({"kind": "CLIENT"}, 3, {}),
        ({"kind": "PRODUCER"}, 4, {}),
        ({"kind": "CONSUMER"}, 5, {}),
        ({}, 1, {}),
        ({"tags": {"span.kind": "server"}}, 2, {}),
        ({"tags": {"span.kind": "internal"}}, 1, {}),
        ({"kind": "client"}, 3, {"kind": 1}),
        ({"kind": "SPAN_KIND_SERVER"}, 2, {"kind": 1}),
        ({"kind": ["x"]}, 1, {"kind": 1}),
    ],
)
def test_kinds(fields, kind, repairs):
    found, counts = only(span(**fields))
    assert (found.kind, counts) == (kind, repairs)
    assert attributes_of(found) == {}


@pytest.mark.parametrize(
    ("tags", "code", "message", "left"),
    [
        ({"error": "boom"}, 2, "boom", {}),
        ({"error": "true"}, 2, "", {}),
        ({"error": ""}, 2, "", {}),
        ({"error": True}, 2, "", {}),
        ({"error": "false"}, 0, "", {"error": "false"}),
        ({"error": False}, 0, "", {"error": False}),
        ({"otel.status_code": "ERROR", "error": "boom"}, 2, "boom", {}),
        ({"otel.status_code": "ERROR", "error": "true", "otel.status_description": "why"}, 2, "why", {}),
        ({"otel.status_code": "STATUS_CODE_OK"}, 1, "", {}),
        ({"otel.status_code": "OK", "error": "x"}, 1, "", {"error": "x"}),
        ({"otel.status_code": "ok"}, 1, "", {}),
        ({"otel.status_code": "odd", "error": "x"}, 2, "x", {"otel.status_code": "odd"}),
    ],
)
def test_status(tags, code, message, left):
    found, _ = only(span(tags=tags))
    assert (found.status.code, found.status.message, attributes_of(found)) == (code, message, left)


def test_what_becomes_fields_and_what_cannot():
    found, _ = only(
        span(
            tags={
                "w3c.tracestate": "ot=th:8",
                "otel.dropped_attributes_count": "2",
                "otel.dropped_events_count": 3,
                "otel.dropped_links_count": "many",
            }
        )
    )
    assert (found.trace_state, found.dropped_attributes_count, found.dropped_events_count) == ("ot=th:8", 2, 3)
    assert attributes_of(found) == {"otel.dropped_links_count": "many"}


def test_endpoints_become_attributes_unless_tags_contain_them():
    made = span(
        localEndpoint={"serviceName": "shop", "ipv4": "10.0.0.1", "port": 80},
        remoteEndpoint={"serviceName": "db", "ipv6": "2001:DB8::1", "port": "3306"},
    )
    assert attributes_of(only(made)[0]) == {
        "network.local.address": "10.0.0.1",
        "network.local.port": 80,
        "peer.service": "db",
        "network.peer.address": "2001:db8::1",
        "network.peer.port": 3306,
    }
    tags = {"peer.service": "mysql", "network.peer.address": "1.1.1.1", "network.peer.port": "1"}
    found = attributes_of(only({**made, "tags": tags})[0])
    assert found.items() >= tags.items()


@pytest.mark.parametrize(
    ("endpoint", "attributes", "repairs"),
    [
        ([], {}, {}),
        ({}, {}, {}),
        ("db", {}, {"endpoint_dropped": 1}),
        ({"serviceName": 7}, {"peer.service": "7"}, {"service_name": 1}),
        ({"ipv4": 2130706433}, {"network.peer.address": "127.0.0.1"}, {"address": 1}),
        ({"ipv4": "localhost", "port": 0}, {}, {"address": 1}),
        ({"port": 1 << 16}, {}, {"port": 1}),
        ({"port": "x"}, {}, {"port": 1}),
    ],
)
def test_odd_endpoints(endpoint, attributes, repairs):
    found, counts = only(span(remoteEndpoint=endpoint))
    assert (attributes_of(found), counts) == (attributes, repairs)


def test_annotations_become_events():
    texts = {
        "cache miss": ("cache miss", {}, 0),
        '"exception": {"exception.type":"E","line":7,"ok":true,"x":null,"l":[1,"a"],"m":{"k":1.5}}': (
            "exception",
            {"exception.type": "E", "line": 7, "ok": True, "x": None, "l": [1, "a"], "m": {"k": 1.5}},
            0,
        ),
        '"bare"': ("bare", {}, 0),
        '"not "escaped": {"a":"b"}': ('not "escaped', {"a": "b"}, 0),
        '"e": {"otel.dropped_attributes_count":2}': ("e", {}, 2),
        'collector|{"a":1}|3': ("collector", {"a": 1}, 3),
        "a|b|c": ("a|b|c", {}, 0),
        '"broken': ('"broken', {}, 0),
        '"list": [1]': ('"list": [1]', {}, 0),
        "x|[]|1": ("x|[]|1", {}, 0),
        "x|{oh}|1": ("x|{oh}|1", {}, 0),
    }
    made = span(annotations=[{"timestamp": START + 5, "value": text} for text in texts])
    found, repairs = only(made)
    assert repairs == {}
    assert [(each.name, attributes_of(each), each.dropped_attributes_count) for each in found.events] == [
        *texts.values()
    ]
    assert {each.time_unix_nano for each in found.events} == {(START + 5) * 1000}


def test_odd_annotations():
    found, repairs = only(
        span(
            annotations=[
                1,
                {},
                {"value": "a"},
                {"timestamp": str(START), "value": 2},
                {"timestamp": START // 1000, "value": "b"},
            ]
        )
    )
    assert [(each.name, each.time_unix_nano) for each in found.events] == [
        ("a", START * 1000),
        ("2", START * 1000),
        ("b", START // 1000 * 1_000_000),
    ]
    assert repairs == {"annotation_dropped": 2, "annotation_type": 1, "time_text": 1, "time_in_ms": 1}


@pytest.mark.parametrize(
    ("ids", "expected", "repairs"),
    [
        ({"id": "10216428"}, ("", SPAN.replace(SPAN, "0000000010216428")), {"id_padded": 1}),
        ({"id": SPAN.upper(), "traceId": TRACE.upper()}, (TRACE, SPAN), {}),
        ({"traceId": TRACE[:16]}, ("0" * 16 + TRACE[:16], SPAN), {}),
        ({"traceId": "7"}, ("0" * 31 + "7", SPAN), {"id_padded": 1}),
        ({"traceId": "ff" + TRACE, "id": "aa" + SPAN}, (TRACE, SPAN), {"id_cut": 2}),
        ({"id": int(SPAN, 16)}, (TRACE, SPAN), {"id_number": 1}),
        ({"id": f"0x{SPAN}"}, (TRACE, SPAN), {"id_spelling": 1}),
        ({"parentId": ""}, (TRACE, SPAN), {}),
        ({"parentId": None}, (TRACE, SPAN), {}),
        ({"parentId": "0" * 16}, (TRACE, SPAN), {}),
    ],
)
def test_ids(ids, expected, repairs):
    found, counts = only(span(**ids))
    assert (found.trace_id.hex(), found.span_id.hex()) == (expected[0] or TRACE, expected[1])
    assert (found.parent_span_id, counts) == (b"", repairs)


@pytest.mark.parametrize(
    ("times", "start", "duration", "repairs"),
    [
        ({"timestamp": START / 1e6, "duration": 0.5}, START * 1000, 500_000_000, {"time_in_s": 1}),
        ({"timestamp": START // 1000, "duration": 7}, START // 1000 * 10**6, 7_000_000, {"time_in_ms": 1}),
        ({"timestamp": START * 1000, "duration": 7}, START * 1000, 7, {"time_in_ns": 1}),
        ({"timestamp": str(START)}, START * 1000, 160_188_000, {"time_text": 1}),
        ({"timestamp": float(START), "duration": 1.5}, START * 1000, 1500, {"time_float": 1}),
        ({"duration": ...}, START * 1000, 0, {}),
        ({"duration": 0}, START * 1000, 0, {}),
        ({"duration": -5}, START * 1000, 0, {"negative_duration": 1}),
        ({"duration": "12"}, START * 1000, 12_000, {"time_text": 1}),
        ({"duration": 1 << 80}, START * 1000, 0, {"duration_out_of_range": 1}),
    ],
)
def test_times_in_any_unit(times, start, duration, repairs):
    found, counts = only(span(**times))
    assert abs(found.start_time_unix_nano - start) <= 1000
    assert found.end_time_unix_nano - found.start_time_unix_nano == duration
    assert counts == repairs
    assert attributes_of(found) == {}


@pytest.mark.parametrize("stamp", [..., None, 0])
def test_a_span_without_a_time_ends_now_or_begins_with_its_first_annotation(stamp):
    absent = {"otel.zipkin.absentField.startTime": True}
    found, repairs = only(span(timestamp=stamp))
    assert (found.end_time_unix_nano, repairs, attributes_of(found)) == (NOW, {}, absent)
    found, _ = only(span(timestamp=stamp, annotations=[{"timestamp": START + at, "value": "a"} for at in (2, 1)]))
    assert (found.start_time_unix_nano, attributes_of(found)) == ((START + 1) * 1000, absent)


@pytest.mark.parametrize(
    ("tags", "attributes", "repairs"),
    [
        ([], {}, {}),
        (None, {}, {}),
        ("x", {}, {"tags_dropped": 1}),
        ([{"key": "a", "value": "b"}, 7], {"a": "b"}, {"tags_list": 1}),
        ({"a": 1, "b": 1.5, "c": False}, {"a": 1, "b": 1.5, "c": False}, {"tag_type": 3}),
        ({"a": None}, {}, {"null_value": 1}),
        ({"a": [1, "x"], "b": {"c": 1}}, {"a": '[1,"x"]', "b": '{"c":1}'}, {"tag_type": 2}),
        ({"a": (1 << 64) - 1, "b": 1 << 65}, {"a": str((1 << 64) - 1), "b": float(1 << 65)}, {"tag_type": 2}),
    ],
)
def test_odd_tags(tags, attributes, repairs):
    found, counts = only(span(tags=tags))
    assert (attributes_of(found), counts) == (attributes, repairs)


def test_parse_string_tags():
    tags = {
        "i": "42",
        "n": "-1",
        "f": "1.5",
        "e": "1e3",
        "t": "true",
        "s": "yes",
        "z": "007",
        "big": "9" * 19,
        "x": "1 ",
    }
    assert attributes_of(only(span(tags=tags))[0]) == tags
    expected = {**tags, "i": 42, "n": -1, "f": 1.5, "e": 1000.0, "t": True}
    for _ in range(2):
        found, repairs = only(span(tags=tags), parse_string_tags=True)
        assert (attributes_of(found), repairs) == (expected, {})
    (resource,) = request_of([span(tags={"process.pid": "7"})], parse_string_tags=True).resource_spans
    assert attributes_of(resource.resource)["process.pid"] == 7
    assert attributes_of(only(span(tags=tags))[0]) == tags


def test_client_and_server_may_share_their_ids():
    spans = [span(kind="CLIENT"), span(kind="SERVER", shared=True, localEndpoint={"serviceName": "api"})]
    for made in (spans, spans[::-1]):
        found = spans_of(made)
        assert {(each.span_id.hex(), each.kind) for each in found} == {(SPAN, 3), (SPAN, 2)}
        server = next(each for each in found if each.kind == 2)
        assert attributes_of(server) == {"zipkin.shared": True}
        assert decoded(made).traces.repairs == {}


def test_the_debug_flag_is_kept():
    assert attributes_of(only(span(debug=True))[0]) == {"zipkin.debug": True}
    assert attributes_of(only(span(debug=False, shared=False))[0]) == {}


def test_repeated_spans_are_dropped_and_different_ones_get_new_ids():
    decoder = decoded([span(), span(), span(name="other")])
    assert decoder.traces.spans == 2
    assert decoder.traces.repairs == {"repeated_span": 1, "duplicate_span_id": 1}


def test_cycles_are_cut():
    ids = [f"{number:016x}" for number in (1, 2, 3)]
    spans = [span(id=id_, parentId=parent) for id_, parent in zip(ids, [*ids[1:], ids[0]], strict=True)]
    assert sum(1 for each in spans_of(spans) if not each.parent_span_id) == 1
    decoder = decoded(spans)
    decoder.traces.body()
    assert decoder.traces.repairs == {"cyclic_reference": 1}
    assert spans_of([span(parentId=SPAN)])[0].parent_span_id == b""


def test_the_php_sdk_writes_the_scope_beside_the_tags():
    # Written after its SpanConverter: tags of the resource among the span's, counts as numbers.
    made = span(
        tags={"k": "1", "service.name": "shop", "host.name": "vm", "otel.dropped_events_count": 2},
        annotations=[{"timestamp": START, "value": '"started"'}, {"timestamp": START, "value": '"e": {"a":"b"}'}],
        **{"otel.scope.name": "io.example", "otel.scope.version": "1"},
    )
    (resource,) = request_of([made]).resource_spans
    assert attributes_of(resource.resource) == {"service.name": "shop", "host.name": "vm"}
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("io.example", "1")
    (found,) = scope.spans
    assert (attributes_of(found), found.dropped_events_count) == ({"k": "1"}, 2)
    assert [(each.name, attributes_of(each)) for each in found.events] == [("started", {}), ("e", {"a": "b"})]
    assert decoded([made]).traces.repairs == {"scope_beside_tags": 1, "tag_type": 1}


def test_a_bad_span_costs_its_neighbours_nothing():
    decoder = decoded([span(), 7, span(id=...), span(traceId="0" * 32), span(id="00000000000000aa")])
    assert decoder.traces.spans == 2
    assert decoder.traces.repairs == {"span_dropped": 3}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([1, span()["id"]], "[0]: a span must be an object"),
        ([{}], "[0].traceId: must be an id of 16 or 32 hex digits"),
        ([span(id=None)], "[0].id: must be an id of 16 hex digits"),
        ({"spans": []}, "the body must be a list of spans"),
        ("text", "the body must be a list of spans"),
        (b"", "the body is not JSON"),
        (b"not json", "the body is not JSON"),
        (b'[{"traceId":', "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
    ],
)
def test_invalid_bodies_are_refused_with_the_position(body, told):
    with pytest.raises(MalformedError) as raised:
        decoded(body)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("body", "kind"), [(span(), "bare_span"), ([[span()], [span(id="00000000000000aa")]], "nested_lists")]
)
def test_similar_documents_are_accepted(body, kind):
    assert decoded(body).traces.repairs == {kind: 1}


def test_text_that_is_not_utf_8_is_read_as_latin_1():
    body = json.dumps([span(name="Café", tags={"t": "naïve"})], ensure_ascii=False)
    found, repairs = spans_of(body.encode("latin-1"))[0], decoded(body.encode("latin-1")).traces.repairs
    assert (found.name, attributes_of(found), repairs) == ("Café", {"t": "naïve"}, {"invalid_utf8": 1})
    (found,) = spans_of(json.dumps([span(name="x\ud800y")]).encode())
    assert found.name == "x\ufffdy"


def test_nested_too_deeply_is_left_out():
    body = b'[{"traceId":"%s","id":"%s","tags":{"a":%s1%s}}]' % (TRACE.encode(), SPAN.encode(), b"[" * 600, b"]" * 600)
    (found,) = spans_of(body)
    assert attributes_of(found)["a"] == "…"


def test_a_large_body_is_decoded_in_steps():
    body = json.dumps([span(id=f"{number:016x}") for number in range(1, 2001)]).encode()
    steps = from_json.decoding(body, NOW)
    assert sum(1 for _ in steps) == 3
    assert len(spans_of(body)) == 2000
