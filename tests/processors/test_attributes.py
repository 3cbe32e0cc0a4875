from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import native
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.projections import POINT_KINDS
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.attributes import Config, severity_number
from tests.kit.attribute_edits import all_agree
from tests.kit.otlp import full, signals_and_requests
from tests.kit.stages import batch_of, build

MARK = {"key": "mark", "value": "new", "action": "upsert"}
SPINES = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
}


def through(body, options, signal=Signal.TRACES, origin=None):
    """Return the forwarded body."""
    stage, catcher = build("attributes", {"actions": [MARK], **options})
    batch = batch_of(body, 1, signal, origin)
    stage.consume(batch)
    (after,) = catcher.batches
    assert after.shares is batch.shares
    return after.body


def holders(signal, request):
    """Yield (resource, scope, item, what has the attributes) of a fully parsed request."""
    resources, scopes, items = SPINES[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            for item in getattr(scope, items):
                if signal is not Signal.METRICS:
                    yield resource, scope, item, item
                    continue
                for kind in POINT_KINDS:
                    if item.HasField(kind):
                        for point in getattr(item, kind).data_points:
                            yield resource, scope, item, point


def mark(holder):
    for pair in holder.attributes:
        if pair.key == "service.name":
            pair.value.Clear()
            pair.value.string_value = "new"
            return
    holder.attributes.add(key="service.name").value.string_value = "new"


ON_SERVICE_NAME = {"actions": [{"key": "service.name", "value": "new", "action": "upsert"}]}
"""The key is one that generated requests have."""


@settings(max_examples=200)
@given(signals_and_requests())
def test_attributes_of_every_item_are_changed_and_nothing_else(drawn):
    signal, body = drawn
    expected = full(signal, body)
    for *_, holder in holders(signal, expected):
        mark(holder)
    got = full(signal, through(body, ON_SERVICE_NAME, signal))
    assert got.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


@settings(max_examples=100)
@given(signals_and_requests(), st.sampled_from(["include", "exclude"]))
def test_filters_choose_items(drawn, way):
    """Names of spans and metrics, and severity texts, are drawn from a few."""
    signal, body = drawn
    name = {Signal.TRACES: "span_names", Signal.METRICS: "metric_names", Signal.LOGS: "log_severity_texts"}[signal]
    field = "severity_text" if signal is Signal.LOGS else "name"
    wanted = ["", "a"]
    expected = full(signal, body)
    for *_, item, holder in holders(signal, expected):
        if (getattr(item, field) in wanted) == (way == "include"):
            mark(holder)
    options = {**ON_SERVICE_NAME, way: {"match_type": "strict", name: wanted}}
    got = full(signal, through(body, options, signal))
    assert got.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


KEYS = st.sampled_from(["a", "service.name", "quo", "new key", "x"])
SETTERS = st.sampled_from(["insert", "update", "upsert"])
ACTIONS = st.lists(
    st.fixed_dictionaries({"key": KEYS, "action": st.sampled_from(["delete", "hash"])})
    | st.fixed_dictionaries({"key": KEYS, "action": SETTERS, "value": st.sampled_from(["v", 1, True])})
    | st.fixed_dictionaries({"key": KEYS, "action": SETTERS, "from_attribute": KEYS})
    | st.fixed_dictionaries({"key": KEYS, "action": SETTERS, "from_context": st.sampled_from(["there", "gone"])})
    | st.fixed_dictionaries({"key": KEYS, "action": SETTERS, "from_attribute": KEYS, "default_value": st.just(2)})
    | st.fixed_dictionaries({"pattern": st.sampled_from(["^[ab]", "e"]), "action": st.sampled_from(["delete", "hash"])})
    | st.fixed_dictionaries({"key": KEYS, "pattern": st.just("^x"), "action": st.just("delete")})
    | st.fixed_dictionaries({"key": KEYS, "pattern": st.just("(?P<quo>.)(?P<b>.*)"), "action": st.just("extract")})
    | st.fixed_dictionaries(
        {"key": KEYS, "action": st.just("convert"), "converted_type": st.sampled_from(["int", "double", "string"])}
    ),
    min_size=1,
    max_size=4,
)
FILTERS = st.sampled_from(
    [
        {},
        {"include": {"match_type": "strict", "services": ["a", ""]}},
        {"exclude": {"match_type": "strict", "libraries": [{"name": ""}]}},
        {"exclude": {"match_type": "strict", "services": [""], "span_names": ["a"]}},
        {"include": {"match_type": "regexp", "span_names": ["a|^$"], "span_kinds": ["SERVER|UNSPEC"]}},
        {"include": {"match_type": "strict", "attributes": [{"key": "a"}]}},
        {
            "include": {"match_type": "regexp", "attributes": [{"key": "service.name", "value": "^.?$"}]},
            "exclude": {"match_type": "strict", "libraries": [{"name": ""}], "attributes": [{"key": "a", "value": ""}]},
        },
        {"include": {"match_type": "strict", "metric_names": ["", "a"]}},
        {"exclude": {"match_type": "regexp", "log_severity_number": {"min": 1}, "log_severity_texts": ["^.{0,9}$"]}},
        {"include": {"match_type": "regexp", "log_bodies": [""]}},
    ]
)


def agree(drawn, actions, filters):
    stage, _ = build("attributes", {"actions": actions, **filters})
    return all_agree(stage, batch_of(drawn[1], 1, drawn[0], Origin(headers={"there": "here"})))


@settings(max_examples=150)
@given(signals_and_requests(), ACTIONS, FILTERS)
def test_all_ways_to_edit_agree(drawn, actions, filters):
    agree(drawn, actions, filters)


@settings(max_examples=80)
@given(signals_and_requests(repeats=True), ACTIONS, FILTERS)
def test_all_ways_to_edit_agree_on_fields_that_occur_twice(drawn, actions, filters):
    agree(drawn, actions, filters)


@settings(max_examples=100)
@given(signals_and_requests(unknown=False), ACTIONS, FILTERS, st.data())
def test_all_ways_to_edit_agree_on_broken_requests(drawn, actions, filters, data):
    signal, body = drawn
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(body)))
        more = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\x80" * 5, b"\xca\x00\x02\x0a\x00"])))
        body = body[:place] + more + body[place + data.draw(st.integers(0, 3)) :]
    agree((signal, body), actions, filters)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"key": "mark", "action": "delete"}, {}),
        ({"key": "mark", "action": "insert", "value": "late"}, {"mark": "new"}),
        ({"key": "mark", "action": "upsert", "value": "late"}, {"mark": "late"}),
        ({"key": "copy", "action": "insert", "from_attribute": "mark"}, {"mark": "new", "copy": "new"}),
        ({"pattern": "^m", "action": "delete"}, {}),
        ({"key": "mark", "action": "extract", "pattern": "(?P<part>..)"}, {"mark": "new", "part": "ne"}),
    ],
)
def test_actions_see_what_those_before_them_added(second, expected):
    body = ExportTraceServiceRequest()
    body.resource_spans.add().scope_spans.add().spans.add()
    after = full(Signal.TRACES, through(body.SerializeToString(), {"actions": [MARK, second]}))
    ((*_, span),) = holders(Signal.TRACES, after)
    assert {pair.key: pair.value.string_value for pair in span.attributes} == expected


def test_the_quick_way_is_taken_where_keys_are_absent(monkeypatch):
    options = {"actions": [MARK, {"key": "user.email", "action": "hash"}]}
    stage, catcher = build("attributes", {**options, "exclude": {"match_type": "strict", "services": ["svcB"]}})
    stage._ways[Signal.TRACES] = (stage._prepare(Signal.TRACES)[0], None)
    monkeypatch.setattr(stage, "_apply", lambda *_: pytest.fail("read one by one"))
    stage.consume(batch_of(traces(), 5))
    assert marked(catcher.batches[0].body) == [ALL[0], ALL[1], ALL[3], ALL[4]]


@pytest.mark.skipif(native.extension is None, reason="the extension module is not available")
@settings(max_examples=60)
@given(signals_and_requests(unknown=False), ACTIONS, FILTERS)
def test_usual_requests_are_edited_in_c(drawn, actions, filters):
    assert agree(drawn, actions, filters)


@given(signals_and_requests())
def test_what_does_not_change_is_the_same_body(drawn):
    signal, body = drawn
    assert through(body, {"actions": [{"key": "nobody has this", "action": "delete"}]}, signal) is body


def traces():
    request = ExportTraceServiceRequest()
    for service, names in (("svcA", ("login", "list")), ("svcB", ("login",)), ("auth", ("login", "token"))):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = "lib", "1"
        for name in names:
            span = scope.spans.add(name=name, kind=2)
            span.attributes.add(key="redact").value.bool_value = name == "login"
    return request.SerializeToString()


def marked(body):
    return [
        (resource.resource.attributes[0].value.string_value, span.name)
        for resource, _, span, _ in holders(Signal.TRACES, full(Signal.TRACES, body))
        if any(pair.key == "mark" for pair in span.attributes)
    ]


ALL = [("svcA", "login"), ("svcA", "list"), ("svcB", "login"), ("auth", "login"), ("auth", "token")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ALL),
        ({"include": {"match_type": "strict", "services": ["svcA", "svcB"]}}, ALL[:3]),
        ({"exclude": {"match_type": "strict", "services": ["svcA"]}}, ALL[2:]),
        ({"exclude": {"match_type": "strict", "services": ["svcA"], "span_names": ["login"]}}, ALL[1:]),
        (
            {
                "include": {"match_type": "regexp", "services": ["auth.*"]},
                "exclude": {"match_type": "regexp", "span_names": ["login.*"]},
            },
            ALL[4:],
        ),
        (
            {
                "include": {"match_type": "strict", "services": ["svcA", "svcB"]},
                "exclude": {"match_type": "strict", "attributes": [{"key": "redact", "value": False}]},
            },
            [ALL[0], ALL[2]],
        ),
        ({"include": {"match_type": "strict", "libraries": [{"name": "lib", "version": "2"}]}}, []),
        ({"include": {"match_type": "strict", "libraries": [{"name": "lib"}]}}, ALL),
        ({"include": {"match_type": "strict", "resources": [{"key": "service.name", "value": "auth"}]}}, ALL[3:]),
        ({"include": {"match_type": "strict", "span_kinds": ["SPAN_KIND_CLIENT"]}}, []),
        ({"include": {"match_type": "strict", "log_bodies": ["login"]}}, []),
        ({"exclude": {"match_type": "strict", "metric_names": ["login"]}}, ALL),
    ],
)
def test_spans_are_chosen(options, expected):
    assert marked(through(traces(), options)) == expected


def test_log_records_are_chosen_by_severity_and_body():
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number, text in ((0, "AUTH ok"), (9, "AUTH ok"), (17, "AUTH failed"), (17, "other")):
        records.add(severity_number=number).body.string_value = text
    body = request.SerializeToString()

    def chosen(include):
        after = full(Signal.LOGS, through(body, {"include": {"match_type": "regexp", **include}}, Signal.LOGS))
        return [bool(record.attributes) for *_, record in holders(Signal.LOGS, after)]

    assert chosen({"log_bodies": ["^AUTH"], "log_severity_number": {"min": "INFO"}}) == [False, True, True, False]
    assert chosen({"log_severity_number": {"min": 17, "match_undefined": True}}) == [True, False, True, True]


def test_data_points_of_every_kind_are_changed():
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for kind in POINT_KINDS:
        getattr(metrics.add(name=kind), kind).data_points.add().attributes.add(key="k").value.int_value = 1
    wanted = {"match_type": "regexp", "metric_names": ["^(sum|.*histogram)$"]}
    after = full(Signal.METRICS, through(request.SerializeToString(), {"include": wanted}, Signal.METRICS))
    got = {
        metric.name: [pair.key for pair in point.attributes] for _, _, metric, point in holders(Signal.METRICS, after)
    }
    assert got == {
        "gauge": ["k"],
        "sum": ["k", "mark"],
        "histogram": ["k", "mark"],
        "exponential_histogram": ["k", "mark"],
        "summary": ["k"],
    }


def test_the_sender_can_be_written_down():
    action = {"key": "site", "from_context": "metadata.x-site", "action": "insert"}
    after = through(traces(), {"actions": [action]}, origin=Origin(headers={"x-site": "shop"}))
    spans = [span for *_, span in holders(Signal.TRACES, full(Signal.TRACES, after))]
    assert all(span.attributes[-1].value.string_value == "shop" for span in spans)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x06\x12\x04\x12\x02\x4a\x7f"])
def test_a_body_that_does_not_parse(signal, body):
    if signal is Signal.TRACES or body == b"\xff":
        with pytest.raises(MalformedError):
            through(body, {"include": {"match_type": "strict", "attributes": [{"key": "k"}]}}, signal)


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ({"services": ["a"]}, "match_type"),
        ({"match_type": "strict"}, "no property is set"),
        ({"match_type": "strict", "services": []}, "no property is set"),
        ({"match_type": "regexp", "services": ["("]}, "not a regular expression"),
        ({"match_type": "regexp", "libraries": [{"name": "a", "version": "["}]}, "not a regular expression"),
        ({"match_type": "regexp", "attributes": [{"key": "a", "value": 1}]}, "put it in quotes"),
        ({"match_type": "strict", "span_kinds": ["SERVER"]}, "not a span kind"),
        ({"match_type": "strict", "attributes": [{"value": 1}]}, "key"),
        ({"match_type": "strict", "log_severity_number": {"min": "LOUD"}}, "not a severity"),
        ({"match_type": "strict", "log_severity_number": {"min": 25}}, "not a severity"),
        ({"match_type": "strict", "names": ["a"]}, "names"),
    ],
)
@pytest.mark.parametrize("way", ["include", "exclude"])
def test_invalid_filters(match, told, way):
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"actions": [MARK], way: match})


def test_severities_have_numbers_and_names():
    assert [severity_number(each) for each in (0, 24, "TRACE", "info", "WARN2", "SEVERITY_NUMBER_FATAL4")] == [
        0, 24, 1, 9, 14, 24,
    ]  # fmt: skip
