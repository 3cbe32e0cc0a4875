"""Overload as senders and backends see it: two exporters, one of whose backends stops answering for a while."""

import json
import time

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.e2e.conftest import backend
from tests.kit.agent import PATIENCE, Agent, free_port, get, post

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  batch: {{send_batch_size: 50, timeout: 20ms}}
exporters:
  otlp_http/good: {{endpoint: 'http://127.0.0.1:{good}', compression: none}}
  otlp_http/stuck:
    endpoint: 'http://127.0.0.1:{stuck}'
    compression: none
    timeout: 1m
    sending_queue: {{queue_size: 2, num_consumers: 1, isolate_after: {isolate_after}}}
extensions:
  health_check: {{endpoint: '127.0.0.1:{health}'}}
service:
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http/good, otlp_http/stuck]}}
"""
SPANS = 50


def body():
    return Sample(spans_per_trace=SPANS).make(Signal.TRACES, 1, time.time_ns())


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_answered_with_200_arrives_at_both_though_one_was_full_for_a_while(tmp_path, sink):
    with backend() as stuck:
        ports = {"good": sink.server_port, "stuck": stuck.server_port, "health": free_port()}
        with Agent(CONFIG.format(**ports, isolate_after="1h"), tmp_path) as agent:
            port = agent.port()
            stuck.gate.clear()
            statuses = [post(port, "/v1/traces", body()) for _ in range(30)]
            assert statuses[0] == 200
            assert statuses[-1] == 429
            stuck.gate.set()
            until(lambda: post(port, "/v1/traces", body()) == 200)
            accepted = (statuses.count(200) + 1) * SPANS
            until(lambda: sink.spans >= accepted and stuck.spans >= accepted)
            assert agent.stop() == 0
        assert (sink.spans, stuck.spans) == (accepted, accepted)


def test_beside_php_what_has_no_capacity_is_dropped_for_both_alike(tmp_path, sink):
    with backend() as stuck:
        ports = {"good": sink.server_port, "stuck": stuck.server_port, "health": free_port()}
        config = CONFIG.format(**ports, isolate_after="1h")
        config = config.replace("'127.0.0.1:0'}", "'127.0.0.1:0', on_overload: accept_and_drop}")
        with Agent(config, tmp_path, metrics=True) as agent:
            port = agent.port()
            stuck.gate.clear()
            assert {post(port, "/v1/traces", body()) for _ in range(30)} == {200}
            accepted = int(agent.metric("otelcol_receiver_accepted_spans", receiver="otlp", transport="http"))
            assert SPANS <= accepted < 30 * SPANS
            stuck.gate.set()
            until(lambda: sink.spans >= accepted and stuck.spans >= accepted)
            assert agent.stop() == 0
        assert (sink.spans, stuck.spans) == (accepted, accepted)


def test_one_that_is_stuck_for_too_long_is_isolated_and_health_tells_it(tmp_path, sink):
    with backend() as stuck:
        health = free_port()
        ports = {"good": sink.server_port, "stuck": stuck.server_port, "health": health}
        with Agent(CONFIG.format(**ports, isolate_after="200ms"), tmp_path) as agent:
            port = agent.port()
            stuck.gate.clear()
            accepted = 0
            for _ in range(30):
                accepted += post(port, "/v1/traces", body()) == 200
            isolated = agent.wait_for("exporter isolated")
            assert isolated["exporter"] == "otlp_http/stuck"
            answer = json.loads(get(health, "/health/detailed")[1])
            assert "isolated: the queue is full without progress" in json.dumps(answer)
            for _ in range(30):
                assert post(port, "/v1/traces", body()) == 200, "the other exporter runs on"
            accepted += 30
            until(lambda: sink.spans == accepted * SPANS)
            stuck.gate.set()
            agent.wait_for("exporter no longer isolated")
            agent.stop()
        assert sink.spans == accepted * SPANS
