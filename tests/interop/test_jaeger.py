"""The real Jaeger behind our exporters: its query API shows every span as it was sent."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.interop.jaeger import Jaeger, Jaeger1
from tests.interop.process import eventually
from tests.interop.spans import KINDS, failed, spans, values
from tests.kit.agent import Agent, post

pytestmark = pytest.mark.interop

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  batch: {{timeout: 50ms}}
exporters:
  {exporter}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [{name}]}}
"""
EXPORTERS = {
    "otlp_grpc": "otlp_grpc: {{endpoint: '127.0.0.1:{otlp_grpc}', tls: {{insecure: true}}}}",
    "otlp_http": "otlp_http: {{endpoint: 'http://127.0.0.1:{otlp_http}'}}",
    "jaeger": "jaeger: {{endpoint: '127.0.0.1:{otlp_grpc}'}}",
    "jaeger-otlp_http": "jaeger: {{protocol: otlp_http, endpoint: '127.0.0.1:{otlp_http}'}}",
    "jaeger-grpc": "jaeger: {{protocol: grpc, endpoint: '127.0.0.1:{grpc}'}}",
    "jaeger-thrift_http": "jaeger: {{protocol: thrift_http, endpoint: '127.0.0.1:{thrift}'}}",
}


@pytest.fixture(scope="module", params=[Jaeger1, Jaeger], ids=["1", "2"])
def jaeger(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp("jaeger")) as jaeger:
        yield jaeger


@pytest.mark.parametrize("way", list(EXPORTERS))
def test_jaeger_shows_what_was_sent(jaeger, way, tmp_path):
    body = Sample(seed=len(way), errors=0.5, service=f"shop-{way}").make(Signal.TRACES, 12, time.time_ns())
    with agent(jaeger, way, tmp_path) as sends:
        assert post(sends.port(), "/v1/traces", body) == 200
        sent = list(spans(body))
        found = eventually(
            lambda: {span.span_id: span for trace in jaeger.traces(f"shop-{way}") for span in trace},
            lambda found: len(found) >= len(sent),
        )
    assert len(found) == len(sent) > 12
    for span, resource in sent:
        shown = found[span.span_id.hex()]
        assert shown.trace_id == span.trace_id.hex()
        assert shown.parent == span.parent_span_id.hex()
        assert (shown.name, shown.service) == (span.name, resource["service.name"])
        assert abs(shown.start - span.start_time_unix_nano / 1000) <= 1
        assert abs(shown.duration - (span.end_time_unix_nano - span.start_time_unix_nano) / 1000) <= 1
        assert values(span.attributes).items() <= shown.tags.items()
        assert shown.tags.get("span.kind") == KINDS[span.kind]
        assert shown.tags.get("error", False) is failed(span)
        assert {key: resource[key] for key in resource if key != "service.name"}.items() <= shown.process_tags.items()
        assert len(shown.logs) == len(span.events)
        for log, event in zip(shown.logs, span.events, strict=True):
            assert abs(log["at"] - event.time_unix_nano / 1000) <= 1
            assert log["event"] == event.name
            assert values(event.attributes).items() <= log.items()
    assert sum(failed(span) for span, _ in sent) > 0


def test_what_generate_sends_is_found(jaeger, tmp_path):
    with agent(jaeger, "otlp_grpc", tmp_path) as sends:
        command = Path(sys.executable).with_name("otelwp-agent")
        options = ["--count=20", "--spans-per-trace=7", "--service=generated"]
        subprocess.run(
            [command, "generate", f"--endpoint=http://127.0.0.1:{sends.port()}", *options],
            check=True,
            capture_output=True,
        )
        traces = eventually(lambda: jaeger.traces("generated"), lambda found: len(found) == 20)
    assert [len(trace) for trace in traces] == [7] * 20
    for trace in traces:
        ids = {span.span_id for span in trace}
        assert [span.parent in ids for span in trace].count(False) == 1
        assert {span.service for span in trace} == {"generated"}


def agent(jaeger, way, folder):
    exporter = EXPORTERS[way].format(**jaeger.ports)
    return Agent(CONFIG.format(exporter=exporter, name=exporter.partition(":")[0]), folder)
