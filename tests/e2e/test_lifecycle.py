"""An agent's life as its process shows it: starts that fail, draining, stopping at once, what its endpoints tell."""

import json
import signal
import socket
import threading
import time
from contextlib import closing

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.service import SAME_SIGNAL
from tests.kit.agent import PATIENCE, Agent, free_port, get, post

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}
processors:
  batch: {{timeout: {timeout}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', compression: none, retry_on_failure: {{initial_interval: 50ms}}}}
extensions:
  health_check: {{endpoint: '127.0.0.1:{health}'}}
service:
  shutdown_timeout: {shutdown}
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
"""

SPANS = 8


def config(**values):
    defaults = {"port": 0, "sink": free_port(), "health": free_port(), "timeout": "20ms", "shutdown": "10s"}
    return CONFIG.format(**(defaults | values))


def body(traces=1):
    return Sample(spans_per_trace=SPANS).make(Signal.TRACES, traces, time.time_ns())


def test_a_port_in_use_is_named_with_the_component_and_nothing_is_left_running(tmp_path):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Agent(config(port=port), tmp_path, wait=False) as agent:
            assert agent.wait() == 1
            assert str(port) in agent.output
            assert "receivers/otlp" in agent.output
            assert "in use" in agent.output
            assert "Traceback" not in agent.output


def test_a_bad_configuration_exits_1_with_every_problem_at_its_place(tmp_path):
    bad = config().replace("otlp_http: {", "otlp_http: {compresion: gzip, ").replace("timeout: 20ms", "timeout: soon")
    with Agent(bad, tmp_path, wait=False) as agent:
        assert agent.wait() == 1
        lines = agent.output.splitlines()
    assert any("agent.yaml:5:" in line and "timeout" in line and "200ms" in line for line in lines)
    assert any("agent.yaml:7:" in line and "compresion" in line and "compression" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_sigterm_delivers_everything_that_was_accepted(tmp_path, sink):
    with Agent(config(sink=sink.server_port, timeout="30s"), tmp_path) as agent:
        port = agent.port()
        for _ in range(50):
            assert post(port, "/v1/traces", body()) == 200
        assert sink.spans == 0  # it is all still in the batcher
        assert agent.stop() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0
    assert sink.spans == 50 * SPANS


def test_a_request_that_is_under_way_at_sigterm_is_answered_or_was_never_accepted(tmp_path, sink):
    accepted = []

    def send(port):
        try:
            while post(port, "/v1/traces", request) == 200:
                accepted.append(SPANS)
        except OSError:
            pass  # it listens no more

    request = body()
    with Agent(config(sink=sink.server_port), tmp_path) as agent:
        senders = [threading.Thread(target=send, args=(agent.port(),)) for _ in range(4)]
        for sender in senders:
            sender.start()
        while len(accepted) < 100:
            time.sleep(0.001)
        assert agent.stop() == 0
        for sender in senders:
            sender.join()
    assert sink.spans == sum(accepted)


def test_a_second_sigterm_stops_at_once_and_says_what_is_lost(tmp_path, sink):
    sink.gate.clear()
    with Agent(config(sink=sink.server_port, shutdown="1h"), tmp_path) as agent:
        assert post(agent.port(), "/v1/traces", body()) == 200
        agent.signal(signal.SIGTERM)
        agent.wait_for("draining")
        time.sleep(2 * SAME_SIGNAL)  # closer together, two signals are one that was handed on twice
        started = time.monotonic()
        agent.signal(signal.SIGTERM)
        agent.wait()
        assert time.monotonic() - started < 30
        assert agent.wait_for("agent stopped immediately after a second signal")["dropped"] == SPANS


def test_draining_ends_after_shutdown_timeout_and_says_what_was_dropped(tmp_path, sink):
    sink.gate.clear()
    with Agent(config(sink=sink.server_port, shutdown="300ms"), tmp_path) as agent:
        assert post(agent.port(), "/v1/traces", body(3)) == 200
        started = time.monotonic()
        agent.stop()
        assert time.monotonic() - started < 30, "the backend holds its answer for a minute"
        assert agent.wait_for("agent stopped", level="error")["dropped"] == 3 * SPANS


def test_what_was_accepted_and_sent_shows_at_the_metrics_endpoint(tmp_path, sink):
    with Agent(config(sink=sink.server_port), tmp_path, metrics=True) as agent:
        port = agent.port()
        for _ in range(5):
            assert post(port, "/v1/traces", body()) == 200
        assert post(port, "/v1/traces", b"\xff") == 400
        assert post(port, "/v1/traces", body(), "text/plain") == 415
        assert post(port, "/v1/metrics", b"") == 404
        agent.wait_for_metric("otelcol_exporter_sent_spans", 5 * SPANS, exporter="otlp_http")
        assert agent.metric("otelcol_receiver_accepted_spans", receiver="otlp", transport="http") == 5 * SPANS
        assert agent.metric("otelcol_exporter_queue_capacity", exporter="otlp_http") == 1000
        assert agent.metric("otelcol_process_memory_rss") > 10e6
    assert sink.spans == 5 * SPANS


def test_health_tells_readiness_and_a_failing_exporter(tmp_path, sink):
    health = free_port()
    sink.gate.clear()
    with Agent(config(sink=sink.server_port, health=health, shutdown="1h"), tmp_path) as agent:
        for path in ("/live", "/ready", "/health"):
            assert get(health, path)[0] == 200, path
        status, text = get(health, "/health/detailed")
        assert status == 200
        assert "otlp_http" in json.dumps(json.loads(text))
        assert post(agent.port(), "/v1/traces", body()) == 200
        agent.signal(signal.SIGTERM)
        agent.wait_for("draining")
        assert get(health, "/ready")[0] == 503
        assert get(health, "/live")[0] == 200
        sink.gate.set()
        assert agent.wait() == 0
    assert sink.spans == SPANS


def test_an_exporter_that_fails_shows_in_health(tmp_path):
    health = free_port()
    with Agent(config(health=health), tmp_path) as agent:  # nothing listens where it sends to
        assert post(agent.port(), "/v1/traces", body()) == 200
        end = time.monotonic() + PATIENCE
        while (answer := get(health, "/health/detailed")) and "refused" not in answer[1] and time.monotonic() < end:
            time.sleep(0.02)
        assert "refused" in answer[1]
        assert get(health, "/live")[0] == 200
