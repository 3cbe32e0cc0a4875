"""SIGHUP under load: no refused connection, no lost span; a broken file changes nothing, and says why."""

import http.client
import signal
import socket
import threading
import time
from contextlib import closing

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent, free_port, post

SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)

BASE = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}', {receiver}}}}}}}
processors:
  batch: {{{batch}}}
  attributes: {{actions: [{{key: reloaded, value: yes, action: upsert}}]}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', {exporter}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [{processors}], exporters: [otlp_http]}}
    {more}
"""

PLAIN = {"receiver": "", "batch": "timeout: 20ms", "exporter": "", "processors": "batch", "more": ""}

CHANGES = [
    {},
    {"batch": "timeout: 10ms, send_batch_size: 16, send_batch_max_size: 32"},
    {"exporter": "compression: none, sending_queue: {num_consumers: 2}"},
    {"receiver": "max_request_body_size: 1MiB"},
    {"more": "metrics: {receivers: [otlp], exporters: [otlp_http]}"},
    {"processors": "attributes, batch"},
    {"receiver": "idle_timeout: 5s", "more": "logs: {receivers: [otlp], exporters: [otlp_http]}"},
    {"processors": ""},
]
"""What changes from reload to reload: each kind of thing that can."""


def config(port, sink, change):
    return BASE.format(port=port, sink=sink.server_port, **(PLAIN | change))


class Load(threading.Thread):
    """Sends without a pause until stopped; `reuse` requests on a connection before it makes a new one."""

    def __init__(self, port, reuse):
        super().__init__()
        self.port, self.reuse = port, reuse
        self.accepted, self.problems = 0, []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                self.send(connection)
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(repr(error))
            finally:
                connection.close()

    def send(self, connection):
        for _ in range(self.reuse):
            connection.request("POST", "/v1/traces", BODY, {"content-type": "application/x-protobuf"})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                self.problems.append(response.status)
            self.accepted += response.status == 200
            if self.stopping.is_set() or response.will_close:
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.stopping.set()
        self.join()


def test_a_hundred_reloads_under_load_refuse_no_connection_and_lose_no_span(tmp_path, sink):
    port = free_port()
    with Agent(config(port, sink, {}), tmp_path) as agent:
        with Load(port, 1) as first, Load(port, 10) as second, Load(port, 1_000_000) as third:
            for turn in range(1, 101):
                agent.reload(config(port, sink, CHANGES[turn % len(CHANGES)]))
                agent.wait_for("configuration reloaded", count=turn)
        loads = [first, second, third]
        assert agent.stop() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0
        errors = [event for event in agent.events if event.get("level") in ("error", "warning")]
    assert [load.problems for load in loads] == [[], [], []]
    assert errors == []
    assert all(load.accepted > 100 for load in loads)
    assert sink.spans == SPANS * sum(load.accepted for load in loads)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("receivers: [", "agent.yaml:"),
        (BASE.format(port=0, sink=1, **(PLAIN | {"batch": "tiemout: 1s"})), "timeout"),
        (BASE.format(port=0, sink=1, **(PLAIN | {"processors": "bacth"})), "batch"),
        ("", "pipeline"),
        (BASE.format(port=0, sink=1, **PLAIN).replace("service:", "service:\n  tier: free"), "needs tier `pro`"),
    ],
    ids=["no YAML", "unknown key", "unknown component", "empty", "above its tier"],
)
def test_a_broken_file_leaves_the_old_graph_running_and_says_why(tmp_path, sink, broken, told):
    port = free_port()
    with Agent(config(port, sink, {}), tmp_path) as agent:
        agent.reload(broken)
        event = agent.wait_for("configuration not reloaded; the old one is still used")
        assert event["level"] == "error"
        assert any(told in problem for problem in event["problems"]), event["problems"]
        assert post(port, "/v1/traces", BODY) == 200
        agent.reload(config(port, sink, CHANGES[1]))
        agent.wait_for("configuration reloaded")
        assert post(port, "/v1/traces", BODY) == 200
        assert agent.stop() == 0
    assert sink.spans == 2 * SPANS


def test_a_new_port_that_is_in_use_leaves_the_old_one_serving(tmp_path, sink):
    with closing(socket.socket()) as taken, Agent(config(0, sink, {}), tmp_path) as agent:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        agent.reload(config(taken.getsockname()[1], sink, {}))
        event = agent.wait_for("configuration not reloaded; the old one is still used")
        assert "receivers/otlp" in event["problems"][0]
        assert post(agent.port(), "/v1/traces", BODY) == 200


def test_what_is_buffered_survives_a_reload_that_changes_everything_around_it(tmp_path, sink):
    slow = PLAIN | {"batch": "timeout: 30s"}
    port = free_port()
    with Agent(config(port, sink, slow), tmp_path) as agent:
        for _ in range(10):
            assert post(port, "/v1/traces", BODY) == 200
        agent.reload(config(port, sink, slow | CHANGES[2] | CHANGES[3]))
        agent.wait_for("configuration reloaded")
        assert post(port, "/v1/traces", BODY) == 200
        assert agent.stop() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0
    assert sink.spans == 11 * SPANS


def test_what_an_exporter_from_before_a_reload_still_sends_is_waited_for_at_sigterm(tmp_path, sink):
    port = free_port()
    sink.gate.clear()
    with Agent(config(port, sink, {}), tmp_path) as agent:
        assert post(port, "/v1/traces", BODY) == 200
        agent.reload(config(port, sink, CHANGES[2]))
        agent.wait_for("configuration reloaded")
        agent.signal(signal.SIGTERM)
        agent.wait_for("draining")
        sink.gate.set()
        assert agent.wait() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0
    assert sink.spans == SPANS


def test_a_pipeline_that_is_taken_away_is_drained(tmp_path, sink):
    change = {"batch": "timeout: 30s", "processors": "batch"}
    port = free_port()
    with Agent(config(port, sink, change), tmp_path) as agent:
        assert post(port, "/v1/traces", BODY) == 200
        agent.reload(config(port, sink, change).replace("traces:", "logs:"))
        agent.wait_for("configuration reloaded")
        end = time.monotonic() + PATIENCE
        while sink.spans < SPANS and time.monotonic() < end:
            time.sleep(0.01)
        assert sink.spans == SPANS
        assert post(port, "/v1/traces", BODY) == 404
