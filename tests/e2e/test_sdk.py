"""The real OpenTelemetry SDK → an agent → OTLP → a second agent → a file: what arrives is what was sent."""

import time

import pytest

from tests.e2e import otlp
from tests.kit.agent import PATIENCE, Agent

FIRST = """
receivers:
  otlp:
    protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  batch: {{timeout: 50ms}}
exporters:
  {exporter}
service:
  pipelines:
    traces: &all {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [{name}]}}
    metrics: *all
    logs: *all
"""

SECOND = """
receivers:
  otlp:
    protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}
exporters:
  file/traces: {{path: {folder}/traces.jsonl}}
  file/metrics: {{path: {folder}/metrics.jsonl}}
  file/logs: {{path: {folder}/logs.jsonl}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file/traces]}}
    metrics: {{receivers: [otlp], exporters: [file/metrics]}}
    logs: {{receivers: [otlp], exporters: [file/logs]}}
"""


@pytest.fixture(scope="module", params=["grpc", "http"])
def chain(request, tmp_path_factory):
    """An agent that sends to a second one by gRPC or HTTP; the folder that the second writes to."""
    folder = tmp_path_factory.mktemp("chain")
    with Agent(SECOND.format(folder=folder), folder, name="second") as second:
        port = second.port(request.param)
        if request.param == "grpc":
            exporter = f"otlp: {{endpoint: '127.0.0.1:{port}', tls: {{insecure: true}}}}"
        else:
            exporter = f"otlp_http: {{endpoint: 'http://127.0.0.1:{port}'}}"
        config = FIRST.format(exporter=exporter, name=exporter.partition(":")[0])
        with Agent(config, folder, name="first") as first:
            yield first, folder


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("signal", list(otlp.SIGNALS))
def test_what_arrives_equals_what_was_sent(chain, signal, protocol):
    first, folder = chain
    made = otlp.make(signal, f"shop-{protocol}")
    sent = otlp.expected(signal, made)
    assert otlp.export(signal, protocol, first.port(protocol), made)
    service = f"shop-{protocol}".encode()
    arrived = eventually(
        lambda: [item for item in otlp.read(signal, lines(folder / f"{signal}.jsonl")) if service in item[2]],
        lambda items: len(items) >= len(sent),
    )
    assert arrived == sent


def lines(path):
    """Return the whole lines that a file holds so far."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def eventually(read, good):
    end = time.monotonic() + PATIENCE
    while not good(value := read()) and time.monotonic() < end:
        time.sleep(0.02)
    return value
