"""The real Zipkin behind our exporter: its query API shows each span as it was sent, as far as its format goes."""

import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.interop.process import eventually
from tests.interop.spans import KINDS, failed, spans, values
from tests.interop.zipkin import Zipkin
from tests.kit.agent import Agent, post

pytestmark = pytest.mark.interop

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  batch: {{timeout: 50ms}}
exporters:
  zipkin: {{endpoint: 'http://127.0.0.1:{port}/api/v2/spans', {settings}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [zipkin]}}
"""


@pytest.fixture(scope="module")
def zipkin(tmp_path_factory):
    with Zipkin(tmp_path_factory.mktemp("zipkin")) as zipkin:
        yield zipkin


@pytest.mark.parametrize("settings", ["format: json", "format: proto", "format: json, compression: gzip"])
def test_zipkin_shows_what_was_sent(zipkin, settings, tmp_path):
    service = f"shop-{len(settings)}"
    body = Sample(seed=len(settings), errors=0.5, service=service).make(Signal.TRACES, 12, time.time_ns())
    with Agent(CONFIG.format(port=zipkin.port, settings=settings), tmp_path) as agent:
        assert post(agent.port(), "/v1/traces", body) == 200
        sent = list(spans(body))
        found = eventually(
            lambda: {span["id"]: span for trace in zipkin.traces(service) for span in trace},
            lambda found: len(found) >= len(sent),
        )
    assert len(found) == len(sent) > 12
    for span, resource in sent:
        shown = found[span.span_id.hex()]
        assert shown["traceId"] == span.trace_id.hex()
        assert shown.get("parentId", "") == span.parent_span_id.hex()
        assert (shown["name"], shown["localEndpoint"]["serviceName"]) == (span.name.lower(), resource["service.name"])
        assert abs(shown["timestamp"] - span.start_time_unix_nano / 1000) <= 1
        assert abs(shown["duration"] - (span.end_time_unix_nano - span.start_time_unix_nano) / 1000) <= 1
        assert shown.get("kind", "INTERNAL").lower() == (KINDS[span.kind] or "internal")
        assert ("error" in shown["tags"]) is failed(span)
        wanted = {**{key: resource[key] for key in resource if key != "service.name"}, **values(span.attributes)}
        assert {key: text(value) for key, value in wanted.items()}.items() <= shown["tags"].items()
        annotations = shown.get("annotations", [])
        assert len(annotations) == len(span.events)
        for event in span.events:
            near = [each for each in annotations if abs(each["timestamp"] - event.time_unix_nano / 1000) <= 1]
            assert any(event.name in each["value"] for each in near)
    assert sum(failed(span) for span, _ in sent) > 0


@pytest.mark.parametrize("form", ["json", "proto"])
def test_an_error_without_a_message_is_an_error(zipkin, form, tmp_path):
    """Zipkin keeps the tag `error` though it is empty, as the specification has it."""
    service = f"silent-{form}"
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    now = time.time_ns()
    span = resource.scope_spans.add().spans.add(
        trace_id=form.ljust(16).encode(),
        span_id=b"s" * 8,
        name="page",
        start_time_unix_nano=now,
        end_time_unix_nano=now + 10**6,
    )
    span.status.code = 2
    with Agent(CONFIG.format(port=zipkin.port, settings=f"format: {form}"), tmp_path) as agent:
        assert post(agent.port(), "/v1/traces", request.SerializeToString()) == 200
        ((found,),) = eventually(lambda: zipkin.traces(service), len)
    assert found["tags"] == {"error": "", "otel.status_code": "ERROR"}


def text(value):
    """Return a value as Zipkin has it, which knows text alone."""
    return str(value).lower() if isinstance(value, bool) else str(value)
