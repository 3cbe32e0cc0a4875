from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.errors import MalformedError
from otelwp_agent.exporters.debug.text import LONGEST, iso, outline, render
from otelwp_agent.model.signal import Signal
from tests.kit.attribute_values import value_of

T0 = 1_795_187_045_123_456_789
TRACE = bytes(range(16))
SPAN = bytes(range(8))


def put(target, value):
    target.CopyFrom(value_of(value))


def attributes(target, values):
    for key, value in values.items():
        put(target.add(key=key).value, value)


def traces():
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.36.0")
    attributes(resource.resource.attributes, {"service.name": "shop", "host": "web 1"})
    resource.resource.entity_refs.add(type="service", id_keys=["service.name"])
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "wordpress", "6.8"
    span = scope.spans.add(
        trace_id=TRACE,
        span_id=SPAN,
        name="GET /cart",
        kind=2,
        start_time_unix_nano=T0,
        end_time_unix_nano=T0 + 12_345_678,
        trace_state="ot=th:8",
        flags=0x101,
        dropped_links_count=3,
    )
    attributes(
        span.attributes,
        {
            "http.request.method": "GET",
            "status": 500,
            "ratio": 0.1,
            "whole": 1.0,
            "ok": True,
            "raw": b"\x00\xff",
            "list": ["a", 1, None],
            "map": {"k": {"deep": [True]}},
            "empty": None,
            "forged": "x\n2026 ERROR\x1b[31m\u202e",
            "number": "42",
        },
    )
    span.status.code, span.status.message = 2, "boom"
    event = span.events.add(time_unix_nano=T0 + 1_000_000, name="exception", dropped_attributes_count=1)
    attributes(event.attributes, {"exception.type": "RuntimeError"})
    span.links.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, trace_state="x=y")
    scope.spans.add(span_id=b"\7" * 8, parent_span_id=SPAN, name="", kind=9, start_time_unix_nano=T0)
    return request.SerializeToString()


def metrics():
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    gauge = scope.metrics.add(name="memory", unit="By", description="Used")
    attributes(gauge.gauge.data_points.add(time_unix_nano=T0, as_int=5).attributes, {"host": "a"})
    gauge.gauge.data_points.add(time_unix_nano=T0, flags=1)
    total = scope.metrics.add(name="requests")
    total.sum.is_monotonic, total.sum.aggregation_temporality = True, 2
    point = total.sum.data_points.add(time_unix_nano=T0, as_double=7.5)
    attributes(point.exemplars.add(time_unix_nano=T0, as_int=1, trace_id=TRACE).filtered_attributes, {"x": 1})
    latency = scope.metrics.add(name="latency", unit="ms")
    latency.histogram.aggregation_temporality = 1
    latency.histogram.data_points.add(
        time_unix_nano=T0, count=4, sum=12.5, min=0, max=9, explicit_bounds=[1, 5], bucket_counts=[1, 0, 3]
    )
    scaled = scope.metrics.add(name="scaled")
    point = scaled.exponential_histogram.data_points.add(time_unix_nano=T0, count=5, sum=1.5, scale=1, zero_count=1)
    point.positive.offset = 1
    point.positive.bucket_counts.extend([1, 0, 2])
    point.negative.bucket_counts.extend([1])
    quantiles = scope.metrics.add(name="quantiles").summary.data_points.add(time_unix_nano=T0, count=2, sum=3)
    quantiles.quantile_values.add(quantile=0.99, value=2)
    scope.metrics.add(name="nothing")
    return request.SerializeToString()


def logs():
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    record = scope.log_records.add(
        time_unix_nano=T0,
        severity_number=17,
        severity_text="ERROR",
        trace_id=TRACE,
        span_id=SPAN,
        event_name="order.failed",
    )
    put(record.body, "payment failed\nsecond")
    attributes(record.attributes, {"order": 12})
    put(scope.log_records.add(observed_time_unix_nano=T0, severity_number=9).body, {"a": 1})
    scope.log_records.add()
    return request.SerializeToString()


def text(block):
    return dedent(block).lstrip("\n")


def test_basic_is_a_line_of_counts():
    assert render(Signal.TRACES, traces(), "basic") == "traces: 1 resource span, 2 spans\n"
    assert render(Signal.METRICS, metrics(), "basic") == "metrics: 1 resource metric, 6 metrics, 6 data points\n"
    assert render(Signal.LOGS, logs(), "basic") == "logs: 1 resource log, 3 log records\n"
    assert render(Signal.LOGS, b"", "basic") == "logs: 0 resource logs, 0 log records\n"
    assert outline(Signal.TRACES, traces() * 3) == {"resource_spans": 3, "spans": 6}


def test_spans_a_line_each():
    assert render(Signal.TRACES, traces(), "normal") == text(
        r"""
        resource  service.name=shop host="web 1"
          scope wordpress 6.8
            GET /cart  server  12.346 ms  error "boom"  trace=000102030405060708090a0b0c0d0e0f span=0001020304050607"""
        r"""  1 event  1 link  http.request.method=GET status=500 ratio=0.1 whole=1.0 ok=true raw=0x00ff"""
        r""" list=["a", 1, (empty)] map={k: {deep: [true]}} empty=(empty)"""
        r""" forged="x\n2026 ERROR\u001b[31m\u202e" number="42"
            ""  9  (no duration)  trace=- span=0707070707070707 parent=0001020304050607
        """
    )


def test_data_points_a_line_each():
    assert render(Signal.METRICS, metrics(), "normal") == text(
        """
        resource
          scope
            memory (gauge, By)  5  2026-11-20T15:04:05.123456789Z  host=a
            memory (gauge, By)  (no recorded value)  2026-11-20T15:04:05.123456789Z
            requests (sum, cumulative)  7.5  2026-11-20T15:04:05.123456789Z
            latency (histogram, delta, ms)  count=4 sum=12.5 min=0.0 max=9.0  2026-11-20T15:04:05.123456789Z
            scaled (exponential histogram)  count=5 sum=1.5  2026-11-20T15:04:05.123456789Z
            quantiles (summary)  count=2 sum=3.0 p99=2.0  2026-11-20T15:04:05.123456789Z
            nothing (no data)
        """
    )


def test_log_records_a_line_each():
    assert render(Signal.LOGS, logs(), "normal") == text(
        r"""
        resource
          scope
            2026-11-20T15:04:05.123456789Z  ERROR  order.failed  "payment failed\nsecond"  """
        r"""trace=000102030405060708090a0b0c0d0e0f span=0001020304050607  order=12
            2026-11-20T15:04:05.123456789Z  severity 9  {a: 1}
            (not set)  -  (empty)
        """
    )


def test_a_trace_in_detail():
    assert render(Signal.TRACES, traces(), "detailed") == text(
        r"""
        resource #0
          schema url: "https://opentelemetry.io/schemas/1.36.0"
          attributes:
            service.name: "shop"
            host: "web 1"
          entity #0
            type:    "service"
            id keys: "service.name"
          scope #0
            name:    "wordpress"
            version: "6.8"
            span #0  GET /cart
              trace id:            000102030405060708090a0b0c0d0e0f
              span id:             0001020304050607
              trace state:         "ot=th:8"
              kind:                server
              start time:          2026-11-20T15:04:05.123456789Z
              end time:            2026-11-20T15:04:05.135802467Z
              duration:            12.346 ms
              dropped links count: 3
              status:              error "boom"
              flags:               0x101
              attributes:
                http.request.method: "GET"
                status: 500
                ratio: 0.1
                whole: 1.0
                ok: true
                raw: 0x00ff
                list: ["a", 1, (empty)]
                map: {k: {deep: [true]}}
                empty: (empty)
                forged: "x\n2026 ERROR\u001b[31m\u202e"
                number: "42"
              event #0  exception
                time:                     2026-11-20T15:04:05.124456789Z
                dropped attributes count: 1
                attributes:
                  exception.type: "RuntimeError"
              link #0
                trace id:    01010101010101010101010101010101
                span id:     0202020202020202
                trace state: "x=y"
            span #1
              span id:        0707070707070707
              parent span id: 0001020304050607
              kind:           9
              start time:     2026-11-20T15:04:05.123456789Z
        """
    )


def test_metrics_in_detail():
    shown = render(Signal.METRICS, metrics(), "detailed")
    for line in (
        'description: "Used"',
        "aggregation temporality: cumulative",
        "is monotonic:            true",
        "filtered attributes:",
        "bucket counts:   1, 0, 3",
        "(-inf, 1.0]: 1",
        "(5.0, +inf]: 3",
        "[-1.41421, -1): 1",
        "[0, 0]:         1",
        "(1.41421, 2]:   1",
        "(2.82843, 4]:   2",
        "quantile: 0.99",
        "flags: 0x1",
    ):
        assert f" {line}\n" in shown
    assert "(1.0, 5.0]" not in shown
    assert "severity number: error" in render(Signal.LOGS, logs(), "detailed")


@pytest.mark.parametrize("scale", [-(2**31), -20, 20])
def test_buckets_beyond_what_floats_hold(scale):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    point = metric.exponential_histogram.data_points.add(scale=scale)
    point.positive.offset = 2**31 - 1
    point.positive.bucket_counts.append(1)
    assert "buckets:" in render(Signal.METRICS, request.SerializeToString(), "detailed")


def test_normal_cuts_what_is_long_and_detailed_does_not():
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="n")
    attributes(span.attributes, {"text": "x" * 500, "raw": b"\xee" * 500})
    body = request.SerializeToString()
    normal = render(Signal.TRACES, body, "normal")
    assert f'"{"x" * LONGEST}"…' in normal
    assert "… (500 bytes)" in normal
    detailed = render(Signal.TRACES, body, "detailed")
    assert f'text: "{"x" * 500}"' in detailed
    assert f"raw: 0x{'ee' * 500}\n" in detailed


@pytest.mark.parametrize("verbosity", ["basic", "normal", "detailed"])
@pytest.mark.parametrize("signal", list(Signal))
def test_what_does_not_parse_is_malformed(signal, verbosity):
    with pytest.raises(MalformedError):
        render(signal, b"\xff\xff", verbosity)


@given(st.text(), st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=20))
def test_whatever_comes_is_lines_that_can_be_printed(string, time, number, data):
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add(schema_url=string)
    scope = resource.scope_spans.add()
    scope.scope.name = string
    span = scope.spans.add(name=string, trace_id=data, kind=number, start_time_unix_nano=time, trace_state=string)
    span.status.code, span.status.message = number, string
    attributes(span.attributes, {string: string, "list": [string, data, {string: number}]})
    for verbosity, lines in (("normal", 3), ("detailed", None)):
        shown = render(Signal.TRACES, request.SerializeToString(), verbosity)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert lines is None or shown.count("\n") == lines


def test_times():
    assert iso(0) == "(not set)"
    assert iso(1) == "1970-01-01T00:00:00.000000001Z"
    assert iso(2**64 - 1) == "2554-07-21T23:34:33.709551615Z"
