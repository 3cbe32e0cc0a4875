import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model import projections
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal

NOW = 1_760_000_000_000_000_000


def parsed(sample, signal, count):
    return request_class(signal).FromString(sample.make(signal, count, NOW))


def spans_of(request):
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


@pytest.mark.parametrize("signal", list(Signal))
@given(count=st.integers(0, 20), spans=st.integers(1, 12), errors=st.floats(0, 1), seed=st.integers())
def test_holds_as_many_items_as_it_says(signal, count, spans, errors, seed):
    sample = Sample(spans_per_trace=spans, errors=errors, seed=seed)
    body = sample.make(signal, count, NOW)
    assert projections.check(signal, body) == sample.items(signal, count)


@pytest.mark.parametrize("signal", list(Signal))
def test_the_same_seed_makes_the_same(signal):
    first, second, other = Sample(seed=7), Sample(seed=7), Sample(seed=8)
    assert first.make(signal, 5, NOW) == second.make(signal, 5, NOW)
    assert first.make(signal, 5, NOW + 1) == second.make(signal, 5, NOW + 1)
    assert other.make(signal, 10, NOW) != Sample(seed=7).make(signal, 10, NOW)


@given(spans=st.integers(1, 30), seed=st.integers())
def test_a_trace_is_one_tree_whose_children_lie_within_their_parents(spans, seed):
    request = parsed(Sample(spans_per_trace=spans, seed=seed), Signal.TRACES, 3)
    traces = {}
    for span in spans_of(request):
        traces.setdefault(span.trace_id, []).append(span)
    assert len(traces) == 3
    for tree in traces.values():
        by_id = {span.span_id: span for span in tree}
        assert len(by_id) == spans
        assert [span for span in tree if not span.parent_span_id] == [tree[0]]
        for span in tree[1:]:
            parent = by_id[span.parent_span_id]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
        assert tree[0].end_time_unix_nano == NOW


def test_errors_are_the_share_that_was_asked_for_and_show_on_the_request_and_where_they_arose():
    request = parsed(Sample(spans_per_trace=6, errors=0.25, seed=1), Signal.TRACES, 400)
    failed = [span for span in spans_of(request) if span.status.code == 2]
    roots = [span for span in failed if not span.parent_span_id]
    assert 60 <= len(roots) <= 140
    assert len(failed) == 2 * len(roots)
    assert all(span.events[0].name == "exception" for span in failed if span.parent_span_id)
    statuses = {value.value.int_value for root in roots for value in root.attributes if "status_code" in value.key}
    assert statuses == {500}


def test_without_errors_nothing_fails():
    assert not any(span.status.code for span in spans_of(parsed(Sample(seed=1), Signal.TRACES, 100)))
    logs = parsed(Sample(seed=1), Signal.LOGS, 100).resource_logs[0].scope_logs[0].log_records
    assert {record.severity_text for record in logs} == {"INFO", "WARN"}


def test_a_failing_trace_of_one_span_says_so_on_that_span():
    (span,) = spans_of(parsed(Sample(spans_per_trace=1, errors=1), Signal.TRACES, 1))
    assert span.status.code == 2
    assert span.status.message
    keys = [each.key for each in span.attributes]
    assert len(keys) == len(set(keys))


def test_cumulative_metrics_never_go_back():
    sample = Sample(seed=3)
    counts, queries = [], []
    for _ in range(5):
        metrics = {
            each.name: each for each in parsed(sample, Signal.METRICS, 3).resource_metrics[0].scope_metrics[0].metrics
        }
        (duration,) = metrics["http.server.request.duration"].histogram.data_points
        assert sum(duration.bucket_counts) == duration.count
        assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
        counts.append(duration.count)
        queries.append(metrics["wordpress.db.queries"].sum.data_points[0].as_int)
    assert all(earlier < later for earlier, later in itertools.pairwise(counts))
    assert all(earlier < later for earlier, later in itertools.pairwise(queries))


def test_one_request_holds_each_metric_once():
    metrics = parsed(Sample(), Signal.METRICS, 12).resource_metrics[0].scope_metrics[0].metrics
    assert [metric.WhichOneof("data") for metric in metrics] == ["histogram", "sum", "gauge"]


def test_no_two_points_of_a_request_are_of_the_same_series():
    for metric in parsed(Sample(), Signal.METRICS, 100).resource_metrics[0].scope_metrics[0].metrics:
        points = getattr(metric, metric.WhichOneof("data")).data_points
        series = {tuple((each.key, each.value.string_value) for each in point.attributes) for point in points}
        assert len(series) == len(points)


def test_the_service_is_named_on_the_resource():
    for signal, field in ((Signal.TRACES, "resource_spans"), (Signal.METRICS, "resource_metrics")):
        (resource,) = getattr(parsed(Sample("shop"), signal, 1), field)
        assert resource.resource.attributes[0].key == "service.name"
        assert resource.resource.attributes[0].value.string_value == "shop"
