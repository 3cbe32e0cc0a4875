"""Beside PHP, whole: a backend that hangs costs no page anything, and nothing of that is silent."""

import json
import socket
import time

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import Agent, free_port, get, post

SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)

CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
        additional_endpoints: ["unix://{folder}/otlp.sock"]
        on_overload: accept_and_drop
  datagram: {{endpoint: "unix://{folder}/datagram.sock"}}
processors:
  wordpress: {{n_plus_one: {threshold}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    sending_queue: {{queue_size: 2, num_consumers: 1}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp, datagram], processors: [wordpress], exporters: [otlp_http]}}
"""


def test_no_page_waits_for_a_backend_that_hangs(tmp_path, sink):
    sink.gate.clear()
    health = free_port()
    config = CONFIG.format(port=free_port(), folder=tmp_path, sink=sink.server_port, health=health, threshold=10)
    with Agent(config, tmp_path, metrics=True) as agent:
        port = agent.port()
        took = []
        for _ in range(20):
            started = time.monotonic()
            assert post(port, "/v1/traces", BODY) == 200
            took.append(time.monotonic() - started)
        assert sorted(took)[10] < 5, "the backend holds its answers for a minute"
        dropped = agent.metric("otelwp_receiver_dropped_requests", receiver="otlp", site="unknown")
        assert 15 <= dropped < 20
        assert agent.metric("otelwp_receiver_dropped_items", receiver="otlp") == 0, "dropped before they were read"
        send(tmp_path / "datagram.sock", BODY)
        agent.wait_for_metric("otelwp_receiver_dropped_requests", 1, receiver="datagram")
        status, body = get(health, "/health/detailed")
        assert status == 200, "it takes and keeps what it can: a restart would not help"
        answer = json.loads(body)
        assert answer["status"] == "degraded"
        assert f"{dropped:.0f} requests were answered and dropped" in body
        assert agent.wait_for("requests dropped", level="error")
        sink.gate.set()
        agent.wait_for_metric("otelcol_exporter_sent_spans", SPANS * (20 - dropped))
        assert agent.stop() == 0
    assert sink.spans == SPANS * (20 - dropped)
    assert not (tmp_path / "otlp.sock").exists()
    assert not (tmp_path / "datagram.sock").exists()


def test_a_reload_keeps_every_socket_and_loses_no_datagram(tmp_path, sink):
    ports = {"port": free_port(), "health": free_port(), "folder": tmp_path, "sink": sink.server_port}
    sent = 0
    with Agent(CONFIG.format(threshold=10, **ports).replace("queue_size: 2", "queue_size: 500"), tmp_path) as agent:
        for threshold in range(11, 14):
            agent.reload(
                CONFIG.format(threshold=threshold, **ports).replace("queue_size: 2", f"queue_size: {threshold}00")
            )
            for _ in range(100):
                send(tmp_path / "datagram.sock", BODY)
                sent += 1
            agent.wait_for("configuration reloaded", count=threshold - 10)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "otlp.sock"))
            client.sendall(
                b"POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\nContent-Type: application/x-protobuf\r\n\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert agent.stop() == 0
    assert sink.spans == SPANS * sent


def send(path, datagram):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(60)
        sender.sendto(datagram, str(path))
