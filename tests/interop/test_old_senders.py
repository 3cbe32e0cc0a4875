"""Real senders of old to our receivers: Jaeger's tracegen, and the exporters that the OpenTelemetry SDK once had."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from peers import golang, python

from tests.e2e import otlp
from tests.interop.process import eventually, have
from tests.kit.agent import Agent

pytestmark = pytest.mark.interop

SENDER = Path(__file__).parent / "senders/old_sdk.py"

CONFIG = """
receivers:
  jaeger: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, thrift_http: {{endpoint: '127.0.0.1:0'}}}}}}
  zipkin: {{endpoint: '127.0.0.1:0'}}
exporters:
  file: {{path: {folder}/traces.jsonl}}
service:
  pipelines:
    traces: {{receivers: [jaeger, zipkin], exporters: [file]}}
"""
JAEGER = {"jaeger-thrift": ("http", "jaeger"), "jaeger-grpc": ("grpc", "jaeger")}
ZIPKIN = dict.fromkeys(("zipkin-v1", "zipkin-v2", "zipkin-proto"), ("http", "zipkin"))
PORTS = {**JAEGER, **ZIPKIN}
"""What each exporter sends to: transport and receiver."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with Agent(CONFIG.format(folder=folder), folder) as agent:
        yield agent


@pytest.mark.parametrize("exporter", list(PORTS))
def test_the_sdk_s_old_exporters_arrive(agent, exporter):
    port = agent.port(*PORTS[exporter])
    done = subprocess.run(
        [have(python.old_sdk), SENDER, exporter, f"127.0.0.1:{port}", f"shop-{exporter}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent = {span["span_id"]: span for span in map(json.loads, done.stdout.splitlines())}
    found = eventually(lambda: arrived(agent, f"shop-{exporter}"), lambda spans: len(spans) >= len(sent))
    assert found.keys() == sent.keys()
    for span_id, span in found.items():
        compare(span, sent[span_id], exporter)


def compare(span, sent, exporter):
    """Compare what arrived with what was sent, to the microsecond: no format of old has more."""
    attributes = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (sent["trace_id"], sent["parent"])
    assert span.name == sent["name"]
    assert abs(span.start_time_unix_nano - sent["start"]) <= 1000
    assert abs(span.end_time_unix_nano - sent["end"]) <= 2000  # It is the sum of two that were rounded.
    kind = span.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[span.kind].name
    if exporter == "zipkin-v1" or (sent["kind"] == "INTERNAL" and exporter in ZIPKIN):
        # Zipkin has no such kind; in version 1 annotations tell it, and this sender writes none of them.
        assert kind in {"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL"}
    else:
        assert kind == f"SPAN_KIND_{sent['kind']}"
    status = span.status.DESCRIPTOR.fields_by_name["code"].enum_type.values_by_number[span.status.code].name
    assert status == f"STATUS_CODE_{sent['status']}"
    assert span.status.message == sent["message"]
    for key, value in sent["attributes"].items():
        assert attributes[key] == (value if exporter in JAEGER else as_text(value)), key
    assert len(span.events) == len(sent["events"])
    for event, (name, time, fields) in zip(span.events, sent["events"], strict=True):
        assert abs(event.time_unix_nano - time) <= 1000
        if exporter in JAEGER:
            assert event.name == name
            found = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in event.attributes}
            assert fields.items() <= found.items()
        else:
            assert name in event.name  # The text of an annotation: Zipkin has nothing else.
    if exporter in JAEGER:
        assert [[link.trace_id.hex(), link.span_id.hex()] for link in span.links] == sent["links"]


def as_text(value):
    """Return a value as a Zipkin exporter writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("traces", [1, 50])
def test_what_jaeger_s_tracegen_sends_arrives(agent, traces):
    service = f"tracegen-{traces}"
    done = subprocess.run(
        [have(golang.tracegen), f"-service={service}", f"-traces={traces}", "-workers=2", "-pause=1ms"],
        env={
            **os.environ,
            "OTEL_EXPORTER_JAEGER_ENDPOINT": f"http://127.0.0.1:{agent.port('http', 'jaeger')}/api/traces",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = eventually(lambda: arrived(agent, service), lambda spans: len(spans) >= traces * 4)
    assert len(found) == traces * 2 * 2  # two workers; a trace is a client's span and a server's
    for span in found.values():
        if span.parent_span_id:
            assert span.trace_id == found[span.parent_span_id.hex()].trace_id
    assert sum(not span.parent_span_id for span in found.values()) == traces * 2


def arrived(agent, service):
    """Return the spans of a service that have arrived, by id."""
    file = agent.folder / "traces.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    request = otlp.SIGNALS["traces"].request
    found = {}
    for line in lines:
        for resource in otlp.json_format.ParseDict(otlp._base64_ids(json.loads(line)), request()).resource_spans:
            names = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            if names == [service]:
                found |= {span.span_id.hex(): span for scope in resource.scope_spans for span in scope.spans}
    return found
