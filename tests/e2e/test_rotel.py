"""Another maker's collector between two agents: what one sends it, and what it sends, is understood.

An agent → Rotel → an agent → a file, over gRPC and HTTP. Needs Rotel's binary, which benchmarks/rotel_binary.py
installs.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.codecs import otlp_json
from otelwp_agent.model import projections
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent, free_port, post

pytestmark = pytest.mark.interop

SENDS = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
exporters:
  otlp_grpc: {{endpoint: '127.0.0.1:{grpc}', tls: {{insecure: true}}, compression: gzip}}
  otlp_http: {{endpoint: 'http://127.0.0.1:{http}', compression: gzip}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [{exporter}]}}
    metrics: {{receivers: [otlp], exporters: [{exporter}]}}
    logs: {{receivers: [otlp], exporters: [{exporter}]}}
"""
TAKES = """
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


@pytest.fixture(scope="module")
def binary():
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import rotel_binary

    try:
        return rotel_binary.get()[0]
    except rotel_binary.NotAvailableError as error:
        pytest.skip(str(error))


class Rotel:
    """Rotel as a process: takes OTLP, and sends it to `port` in a protocol."""

    def __init__(self, binary, folder, protocol, port):
        self.grpc, self.http = free_port(), free_port()
        target = f"http://127.0.0.1:{port}"
        options = [
            f"--otlp-grpc-endpoint=127.0.0.1:{self.grpc}",
            f"--otlp-http-endpoint=127.0.0.1:{self.http}",
            "--exporter=otlp",
            f"--otlp-exporter-protocol={protocol}",
            f"--otlp-exporter-endpoint={target}",
            "--otlp-exporter-compression=gzip",
            f"--pid-file={folder}/rotel.pid",
            f"--log-file={folder}/rotel.log",
        ]
        self.process = subprocess.Popen(
            [binary, "start", *options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )

    def __enter__(self):
        for port in (self.grpc, self.http):
            eventually(lambda port=port: listens(port), wanted=True)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)


def listens(port):
    with socket.socket() as each:
        return each.connect_ex(("127.0.0.1", port)) == 0


def eventually(read, wanted):
    end = time.monotonic() + PATIENCE
    while (found := read()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert found == wanted


def names(signal, bodies):
    """Return what can be told from one another: span ids with names, metrics' names, log records' texts."""
    found = []
    for body in bodies:
        for resource in json.loads(body)[
            f"resource{signal.value.removesuffix('s').capitalize()}s".replace("Traces", "Spans")
        ]:
            for scopes in (value for key, value in resource.items() if key.startswith("scope")):
                for scope in scopes:
                    items = scope.get("spans") or scope.get("metrics") or scope.get("logRecords")
                    found += [(item.get("spanId"), item.get("name"), str(item.get("body"))) for item in items]
    return sorted(found, key=str)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_passes_through_rotel_arrives(binary, protocol, tmp_path):
    with (
        Agent(TAKES.format(folder=tmp_path), tmp_path, name="takes") as takes,
        Rotel(binary, tmp_path, protocol, takes.port(protocol)) as rotel,
    ):
        exporter = f"otlp_{protocol}"
        unused = {"otlp_grpc": "otlp_http", "otlp_http": "otlp_grpc"}[exporter]
        config = SENDS.format(grpc=rotel.grpc, http=rotel.http, exporter=exporter)
        config = "".join(line for line in config.splitlines(keepends=True) if not line.startswith(f"  {unused}:"))
        with Agent(config, tmp_path, name="sends") as sends:
            for signal in Signal:
                body = Sample(seed=3, errors=0.3).make(signal, 20, time.time_ns())
                assert post(sends.port(), f"/v1/{signal.value}", body) == 200
                sent = names(signal, [otlp_json.encode(signal, body)])
                assert len(sent) > 1
                assert projections.count(signal, body) >= 20
                file = tmp_path / f"{signal.value}.jsonl"
                eventually(lambda file=file, signal=signal: names(signal, lines(file)), sent)


def lines(file):
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []
