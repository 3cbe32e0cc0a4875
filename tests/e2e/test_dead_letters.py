"""What becomes of what a backend refuses for good, and of the books: from the first answer to the last command."""

import gzip
import json
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.kit.agent import PATIENCE, Agent
from tests.kit.commands import run_command

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  batch: {{timeout: {timeout}, send_batch_size: 1000}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}'}}
service:
  {kept}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
"""
JOURNAL = "journal: {{directory: {folder}/state}}"
LETTERS = "dead_letter: {{path: {folder}/state/dead-letters}}\n  control_socket: {folder}/state/control.sock"
POISON = "poison"


class Backend:
    """Answers 400 to whatever holds a span called `POISON`, as long as it is not `cured`."""

    def __init__(self, port=0):
        self.cured = False
        self.spans = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                names = span_names(body)
                if POISON in names and not backend.cured:
                    self.answer(400, b"a span that nobody can read")
                else:
                    backend.spans += names
                    self.answer(200, b"")

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def span_names(body):
    request = ExportTraceServiceRequest.FromString(body)
    return [span.name for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]


def span(name):
    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans.add(name=name)
    made.trace_id, made.span_id = bytes(15) + b"\x01", bytes(7) + b"\x01"
    return request.SerializeToString()


def send(port, names):
    """Send a request for each span, all of which must be taken."""
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        for name in names:
            connection.request("POST", "/v1/traces", span(name), {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.close()


def command(*arguments):
    done = run_command(*arguments)
    return done.returncode, done.stdout, done.stderr


def audit(agent, *arguments):
    """Return the exit status, and the line of each kind."""
    status, out, err = command("audit", "--json", "--config", agent.file, *arguments)
    assert out, err
    report = json.loads(out)
    return status, {line["kind"]: line for line in report["lines"]}, report["problems"]


@pytest.mark.parametrize("kept", [JOURNAL, LETTERS], ids=["journal", "file"])
def test_one_bad_request_among_a_thousand_costs_nobody_else_and_can_be_sent_again(backend, tmp_path, kept):
    config = CONFIG.format(sink=backend.port, timeout="1h", kept=kept.format(folder=tmp_path))
    with Agent(config, tmp_path) as agent:
        port = agent.port()
        send(port, [POISON if number == 617 else f"page {number}" for number in range(1000)])
        agent.wait_for("items kept as dead letters")
        until(lambda: len(backend.spans) == 999)
        assert sorted(backend.spans) == sorted(f"page {number}" for number in range(1000) if number != 617)

        status, out, _ = command("dead-letter", "list", "--json", "--config", agent.file)
        (letter,) = json.loads(out)
        assert (status, letter["exporter"], letter["items"], letter["reason"]) == (0, "otlp_http", 1, "malformed")
        assert "a span that nobody can read" in letter["error"]
        shown = json.loads(command("dead-letter", "show", letter["id"], "--config", agent.file)[1])
        assert shown["request"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == POISON

        status, lines, problems = audit(agent)
        assert (status, problems) == (0, [])
        assert (lines["pipeline"]["accepted"], lines["pipeline"]["delivered"]) == (1000, 999)
        assert lines["exporter"]["reasons"] == {"dead_letter:malformed": 1}
        assert [line["kept"] for line in lines.values()] == [1, 1, 1, 1]

        resend = "dead-letter", "resend", "--all", "--config", agent.file
        assert command(*resend)[:2] == (
            1,
            "0 letters delivered, 1 refused again (`dead-letter list` has the reasons)\n",
        )
        backend.cured = True
        assert command(*resend) == (0, "1 letter delivered\n", "")
        assert len(backend.spans) == 1000
        assert command("dead-letter", "list", "--config", agent.file) == (0, "", "no dead letters\n")
        status, lines, _ = audit(agent)
        assert (status, lines["exporter"]["accepted"], lines["exporter"]["delivered"]) == (0, 1000, 1000)
        assert (lines["pipeline"]["accepted"], lines["pipeline"]["kept"]) == (1000, 1)
        assert agent.stop() == 0
        if kept == JOURNAL:
            status, lines, problems = audit(agent)
            assert (status, problems, lines["pipeline"]["dropped"], lines["pipeline"]["kept"]) == (0, [], 1, 1)
    assert not (tmp_path / "state" / "control.sock").exists()


def test_the_books_on_disk_after_a_crash(backend, tmp_path):
    kept = f"journal: {{directory: {tmp_path}/state}}"
    config = CONFIG.format(sink=backend.port, timeout="1h", kept=kept)
    with Agent(config, tmp_path) as agent:
        send(agent.port(), [f"page {number}" for number in range(10)])
        assert audit(agent)[1]["pipeline"]["in_flight"] == 10
        agent.close()
        assert (tmp_path / "state" / "control.sock").is_socket()
        status, lines, problems = audit(agent)
        assert (status, problems) == (0, [])
        assert (lines["pipeline"]["accepted"], lines["pipeline"]["in_flight"]) == (10, 10)
        assert audit(agent)[:2] == audit(agent, "--set", "service.control_socket=none")[:2]

        (segment,) = (tmp_path / "state").glob("*.journal")
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        status, _, problems = audit(agent)
        assert status == 1
        assert "damaged" in problems[0] or "missing" in problems[0]


def test_the_letters_of_an_agent_that_does_not_run(backend, tmp_path):
    kept = f"dead_letter: {{path: {tmp_path}/letters}}"
    with Agent(CONFIG.format(sink=backend.port, timeout="1ms", kept=kept), tmp_path) as agent:
        send(agent.port(), [POISON])
        agent.wait_for("items kept as dead letters")
        purge = "dead-letter", "purge", "--all", "--yes", "--config", agent.file
        status, _, err = command(*purge)
        assert (status, "another process writes this file" in err) == (1, True)
        agent.close()
        assert command("dead-letter", "list", "--config", agent.file)[1].count(POISON) == 0
        assert command("dead-letter", "list", "--config", agent.file)[1].count("malformed") == 1
        assert command("dead-letter", "resend", "--all", "--config", agent.file)[0] == 1
        assert command(*purge) == (0, "purged 1 letter\n", "")


def test_two_agents_do_not_share_what_they_keep(backend, tmp_path):
    kept = f"dead_letter: {{path: {tmp_path}/letters}}\n  control_socket: {tmp_path}/control.sock"
    config = CONFIG.format(sink=backend.port, timeout="1ms", kept=kept)
    with Agent(config, tmp_path):
        with Agent(config, tmp_path, name="second", wait=False) as second:
            assert second.wait() == 1
            assert "Give each agent a file of its own" in second.output
        other = config.replace("/letters", "/other")
        with Agent(other, tmp_path, name="third", wait=False) as third:
            assert third.wait() == 1
            assert "Change service.control_socket" in third.output
            assert "Traceback" not in third.output
        assert (tmp_path / "control.sock").is_socket()
