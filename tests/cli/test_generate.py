import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from otelwp_agent.cli import main
from otelwp_agent.cli.generate import generate
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent, free_port

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}}}
exporters:
  file: {{path: {folder}/out.jsonl}}
service:
  pipelines:
    traces: &all {{receivers: [otlp], exporters: [file]}}
    metrics: *all
    logs: *all
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    with Agent(CONFIG.format(folder=folder), folder, metrics=True) as running:
        yield running


@pytest.fixture
def backend():
    """A server that gives `answers` (status, headers, body), then success, and keeps the headers it got."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            server.got.append((self.path, dict(self.headers)))
            status, headers, body = server.answers.pop(0) if server.answers else (200, {}, b"")
            if status == 0:
                server.gate.wait(PATIENCE)
                return
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.answers, server.got, server.gate = [], [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


def call(*arguments):
    return CliRunner().invoke(generate, [str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
@pytest.mark.parametrize("kind", list(Signal))
def test_an_agent_takes_every_signal_in_every_protocol(agent, kind, protocol):
    port = agent.port("grpc" if protocol == "grpc" else "http")
    name = f"otelcol_receiver_accepted_{kind.items}"
    before = agent.metric(name)
    result = call("--signal", kind.value, "--protocol", protocol, "--endpoint", f"127.0.0.1:{port}", "--count", 200)
    assert result.exception is None
    assert result.return_value == 0
    items = 1600 if kind is Signal.TRACES else 200
    assert f"{items:,} accepted, 0 rejected" in result.stdout
    assert agent.metric(name) == before + items


def test_nothing_that_listens_says_what_to_start(tmp_path):
    done = command("generate", "--endpoint", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "nothing listens on" in done.stderr
    assert "otelwp-agent run" in done.stderr
    assert "Traceback" not in done.stderr
    done = command("generate", "--endpoint", f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert "nothing listens on unix://" in done.stderr


def test_a_host_that_is_not_known_is_told():
    done = command("generate", "--endpoint", "nobody.invalid:4318")
    assert done.returncode == 1
    assert "nobody.invalid" in done.stderr
    assert "--endpoint" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--errors", "105%"], "5%"),
        (["--errors", "few"], "few"),
        (["--header", "nothing"], "name=value"),
        (["--endpoint", "https://127.0.0.1:4318", "--insecure"], "contradict"),
        (["--endpoint", "ftp://here"], "unknown scheme"),
        (["--count", "0"], "--count"),
        (["--rate", "-1"], "--rate"),
        (["--protocol", "thrift"], "thrift"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_would_be_right(arguments, told, capsys):
    assert main._run(["generate", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_headers_and_path_are_sent(backend):
    url = f"http://127.0.0.1:{backend.server_port}/ingest/"
    result = call("--endpoint", url, "--header", "x-key=a=b", "--header", "X-Tenant = shop", "--count", 1)
    assert result.return_value == 0
    ((path, headers),) = backend.got
    assert path == "/ingest/v1/traces"
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["x-key"] == "a=b"
    assert headers["x-tenant"] == "shop"
    assert headers["content-type"] == "application/x-protobuf"


def test_retry_after_is_honoured(backend):
    backend.answers = [(429, {"retry-after": "1"}, b""), (503, {"retry-after": "0"}, b"")]
    result = call("--endpoint", f"127.0.0.1:{backend.server_port}", "--count", 1)
    assert result.return_value == 0
    assert "8 accepted, 0 rejected, 2 requests retried" in result.stdout
    assert float(re.search(r"([\d.]+) s,", result.stdout)[1]) >= 1


def test_a_refusal_is_explained(backend):
    backend.answers = [(401, {"content-type": "text/plain"}, b"no such key")] * 10
    result = call("--endpoint", f"127.0.0.1:{backend.server_port}", "--count", 1)
    assert result.return_value == 1
    assert "0 accepted, 8 rejected" in result.stdout
    assert "401" in result.stderr
    assert "no such key" in result.stderr


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_partial_success_is_told_and_is_no_success(backend, protocol):
    if protocol == "http/json":
        body = json.dumps({"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}}).encode()
    else:
        body = b"\x0a\x0b\x08\x03\x12\x07too old"
    backend.answers = [(200, {}, body)]
    result = call("--endpoint", f"127.0.0.1:{backend.server_port}", "--count", 1, "--protocol", protocol)
    assert result.return_value == 1
    assert "5 accepted, 3 rejected" in result.stdout
    assert "too old" in result.stderr


def test_the_wrong_port_is_hinted_at(monkeypatch, agent):
    monkeypatch.setitem(sys.modules["otelwp_agent.cli.generate"].PORTS, "grpc", agent.port("grpc"))
    monkeypatch.setattr("otelwp_agent.cli.generate.generation.WAITS", (0.001, 0.001))
    result = call("--endpoint", f"127.0.0.1:{agent.port('grpc')}", "--count", 1)
    assert result.return_value == 1
    assert "--protocol grpc" in result.stderr


def test_ctrl_c_ends_it_with_the_summary(backend):
    process = subprocess.Popen(
        [executable(), "generate", "--endpoint", f"127.0.0.1:{backend.server_port}", "--count", "1000", "--rate", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stderr.readline()  # the first sign of progress
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert re.match(r" *\d+%  sent [\d,]+ spans: ", line)
    assert re.match(r"sent [\d,]+ spans: [\d,]+ accepted, 0 rejected", out)
    assert "Traceback" not in errors


def test_progress_on_a_terminal_is_one_line_that_is_wiped_at_the_end(backend):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [executable(), "generate", "--endpoint", f"127.0.0.1:{backend.server_port}", "--count", "13", "--rate", "10"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    out, _ = process.communicate(timeout=PATIENCE)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "104 accepted" in out
    assert shown.startswith("\r\x1b[K")
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")


def test_help_names_every_option():
    done = command("generate", "--help")
    assert done.returncode == 0
    for option in ("--signal", "--count", "--rate", "--spans-per-trace", "--endpoint", "--protocol", "--seed"):
        assert option in done.stdout


def executable():
    return Path(sys.executable).with_name("otelwp-agent")


def command(*arguments):
    return subprocess.run([executable(), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
