"""The real OpenTelemetry Collector as sender and as destination: what arrives equals what was sent."""

import struct

import pytest

from tests.e2e import otlp
from tests.interop.collector import Collector
from tests.interop.process import eventually
from tests.kit.agent import Agent, free_port

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("the_collector")]

AGENT_TAKES = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}}}
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
SENDS = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}'}}, http: {{endpoint: '127.0.0.1:{http}'}}}}}}
processors:
  batch: {{timeout: 50ms}}
exporters:
  {exporter}
service:
  pipelines:
    traces: &all {{receivers: [otlp], processors: [batch], exporters: [{name}]}}
    metrics: *all
    logs: *all
"""
COLLECTOR_TAKES = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}'}}, http: {{endpoint: '127.0.0.1:{http}'}}}}}}
exporters:
  file/traces: {{path: {folder}/traces.pb, format: proto, flush_interval: 50ms}}
  file/metrics: {{path: {folder}/metrics.pb, format: proto, flush_interval: 50ms}}
  file/logs: {{path: {folder}/logs.pb, format: proto, flush_interval: 50ms}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file/traces]}}
    metrics: {{receivers: [otlp], exporters: [file/metrics]}}
    logs: {{receivers: [otlp], exporters: [file/logs]}}
"""
EXPORTERS = {
    "grpc": "otlp: {{endpoint: '127.0.0.1:{grpc}', tls: {{insecure: true}}, compression: none}}",
    "grpc-gzip": "otlp: {{endpoint: '127.0.0.1:{grpc}', tls: {{insecure: true}}, compression: gzip}}",
    "http": "otlphttp: {{endpoint: 'http://127.0.0.1:{http}', compression: none}}",
    "http-gzip": "otlphttp: {{endpoint: 'http://127.0.0.1:{http}', compression: gzip}}",
    "http-zstd": "otlphttp: {{endpoint: 'http://127.0.0.1:{http}', compression: zstd}}",
    "http-json": "otlphttp: {{endpoint: 'http://127.0.0.1:{http}', compression: gzip, encoding: json}}",
}
"""By how they send. The same words mean the same to the Collector and to the agent."""

ZEROS = {struct.pack("<d", -0.0): bytes(8)}
"""The Collector writes a negative zero to JSON as `-0`, which to JSON's parsers is an integer, and has no sign."""

NANS = {struct.pack("<Q", 0x7FF8 << 48 | 1): struct.pack("<d", float("nan"))}
"""What JSON calls `NaN` Go makes another of the many NaNs than Python does."""


@pytest.mark.parametrize("way", list(EXPORTERS))
def test_what_the_collector_sends_arrives(way, tmp_path):
    with Agent(AGENT_TAKES.format(folder=tmp_path), tmp_path, metrics=True) as agent:
        ports = {"grpc": free_port(), "http": free_port()}
        exporter = EXPORTERS[way].format(grpc=agent.port("grpc"), http=agent.port("http"))
        config = SENDS.format(**ports, exporter=exporter, name=exporter.partition(":")[0])
        with Collector(config, tmp_path):
            same = ZEROS if way == "http-json" else {}
            passes(ports, lambda signal: otlp.read(signal, lines(tmp_path / f"{signal}.jsonl")), way, same)


@pytest.mark.parametrize("way", list(EXPORTERS))
def test_what_the_agent_sends_arrives(way, tmp_path):
    ports = {"grpc": free_port(), "http": free_port()}
    with Collector(COLLECTOR_TAKES.format(**ports, folder=tmp_path), tmp_path):
        exporter = EXPORTERS[way].format(**ports)
        config = SENDS.format(grpc=0, http=0, exporter=exporter, name=exporter.partition(":")[0])
        with Agent(config, tmp_path) as agent:
            own = {protocol: agent.port(protocol) for protocol in ports}
            same = NANS if way == "http-json" else {}
            passes(own, lambda signal: otlp.items(signal, messages(signal, tmp_path / f"{signal}.pb")), way, same)


def passes(ports, read, way, same):
    """Send everything that the SDK can make, by both protocols, and compare what `read` finds for each signal.

    `same` has bytes that are taken for others before the comparison: what this way cannot tell apart.
    """
    for protocol, port in ports.items():
        for signal in otlp.SIGNALS:
            service = f"shop-{way}-{protocol}"
            made = otlp.make(signal, service)
            sent = otlp.expected(signal, made)
            assert otlp.export(signal, protocol, port, made)
            arrived = eventually(
                lambda signal=signal, service=service: [item for item in read(signal) if service.encode() in item[2]],
                lambda items, sent=sent: len(items) >= len(sent),
            )
            assert taken(arrived, same) == taken(sent, same), f"{signal} over {protocol}, then {way}"


def taken(items, same):
    """Return the items with the bytes in `same` replaced."""
    for found, meant in same.items():
        items = [(*item[:2], *(part.replace(found, meant) for part in item[2:])) for item in items]
    return sorted(items)


def lines(path):
    """Return the whole lines that a file holds so far."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def messages(signal, path):
    """Return the requests in a file of the Collector's, each behind its length in four bytes."""
    body, found = path.read_bytes() if path.exists() else b"", []
    while len(body) >= 4:
        (length,) = struct.unpack_from(">I", body)
        if len(body) < 4 + length:
            break
        found.append(otlp.SIGNALS[signal].request.FromString(body[4 : 4 + length]))
        body = body[4 + length :]
    return found
