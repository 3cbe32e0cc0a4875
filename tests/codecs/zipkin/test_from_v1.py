"""Zipkin's v1 JSON: core annotations contain kind and times, each with its endpoint."""

import tracemalloc

import pytest

from otelwp_agent.codecs.zipkin import from_v1
from otelwp_agent.errors import MalformedError
from tests.kit.zipkin import SPAN, START, TRACE, attributes_of, decoded, request_of

WEB = {"serviceName": "web", "ipv4": "10.0.0.1", "port": 80}
API = {"serviceName": "api", "ipv4": "10.0.0.2"}


def span(**fields):
    return {"traceId": TRACE, "id": SPAN, "name": "get"} | fields


def at(offset, value, endpoint=WEB):
    return {"timestamp": START + offset, "value": value, "endpoint": endpoint}


def sides(*spans, **options):
    """Return (service, kind, start, duration, attributes, event names) of every span, in microseconds after START."""
    return [
        (
            attributes_of(resource.resource).get("service.name"),
            each.kind,
            each.start_time_unix_nano // 1000 - START,
            (each.end_time_unix_nano - each.start_time_unix_nano) // 1000,
            attributes_of(each),
            [event.name for event in each.events],
        )
        for resource in request_of([*spans], from_v1, **options).resource_spans
        for scope in resource.scope_spans
        for each in scope.spans
    ]


LOCAL = {"network.local.address": "10.0.0.1", "network.local.port": 80}


def test_a_client():
    made = span(
        annotations=[at(0, "cs"), at(3, "retry"), at(9, "cr")],
        binaryAnnotations=[
            {"key": "http.path", "value": "/a", "endpoint": WEB},
            {"key": "sa", "value": True, "endpoint": API},
        ],
    )
    assert sides(made) == [
        (
            "web",
            3,
            0,
            9,
            {"http.path": "/a", "peer.service": "api", "network.peer.address": "10.0.0.2", **LOCAL},
            ["retry"],
        )
    ]


@pytest.mark.parametrize(
    ("annotations", "kind", "start", "duration"),
    [
        ([at(1, "sr"), at(5, "ss")], 2, 1, 4),
        ([at(1, "ms")], 4, 1, 0),
        ([at(1, "mr")], 5, 1, 0),
        ([at(4, "ss")], 2, 4, 0),
    ],
)
def test_other_kinds(annotations, kind, start, duration):
    ((service, *found, attributes, events),) = sides(span(annotations=annotations))
    assert (service, found, attributes, events) == ("web", [kind, start, duration], LOCAL, [])


def test_the_times_of_the_span_itself_hold():
    made = span(timestamp=START + 1, duration=50, annotations=[at(2, "sr"), at(3, "ss")])
    assert sides(made)[0][1:4] == (2, 1, 50)


def test_a_span_of_client_and_server_becomes_two_with_equal_ids():
    made = span(
        annotations=[at(0, "cs"), at(2, "sr", API), at(5, "ss", API), at(9, "cr"), at(3, "work", API)],
        binaryAnnotations=[{"key": "a", "value": "1", "endpoint": API}, {"key": "b", "value": "2", "endpoint": WEB}],
    )
    client, server = sides(made)
    assert client == ("web", 3, 0, 9, {"b": "2", **LOCAL}, [])
    assert server == ("api", 2, 2, 3, {"a": "1", "network.local.address": "10.0.0.2", "zipkin.shared": True}, ["work"])


def test_a_local_span_is_named_by_its_component():
    local = [{"key": "lc", "value": "cron"}]
    assert sides(span(timestamp=START, duration=3, binaryAnnotations=local)) == [("cron", 1, 0, 3, {"lc": "cron"}, [])]
    with_endpoint = [{"key": "lc", "value": "", "endpoint": WEB}, {"key": "error", "value": "x", "endpoint": WEB}]
    ((service, *_),) = sides(span(timestamp=START, binaryAnnotations=with_endpoint))
    assert service == "web"


def test_parse_string_tags_and_debug():
    made = span(timestamp=START, debug=True, binaryAnnotations=[{"key": "n", "value": "7"}])
    assert sides(made, parse_string_tags=True)[0][4] == {"n": 7, "zipkin.debug": True}


def test_odd_annotations_are_passed_over():
    made = span(
        timestamp=START,
        annotations=[1, {}, {"value": ["cs"]}, at(0, "cs", "web")],
        binaryAnnotations=[2, {"key": ["k"], "value": [1]}, {"key": "sa", "value": [True]}],
    )
    ((_, kind, *_),) = sides(made)
    assert kind == 3
    assert sides(span(timestamp=START, annotations={}, binaryAnnotations="x"))[0][1] == 1


def test_what_cannot_be_used():
    with pytest.raises(MalformedError, match=r"\[0\]\.id"):
        decoded([span(id="")], from_v1)


def test_empty_annotations_need_little_memory():
    parts = b",".join([b"{}"] * 20_000)
    body = b'[{"traceId":"1","id":"1","annotations":[%b],"binaryAnnotations":[%b]}]' % (parts, parts)
    request_of([span()], from_v1)  # what the first request creates
    tracemalloc.start()
    try:
        for _ in from_v1.decoding(body, 0):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(body)
