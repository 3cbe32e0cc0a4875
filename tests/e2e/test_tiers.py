"""The examples of the tiers as they stand, and an agent whose licence is replaced while it runs."""

import json
import re
from pathlib import Path

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import Agent, free_port, get, post
from tests.licensing.issuer import ISSUER

EXAMPLES = Path(__file__).parents[2] / "examples"
SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)

BACKEND = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{port}'}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
"""


def example(name):
    """Return an example on free ports: the only change."""
    return re.sub(r"127\.0\.0\.1:\d+$", "127.0.0.1:0", (EXAMPLES / f"{name}.yaml").read_text(), flags=re.MULTILINE)


def traces(number):
    return Sample(spans_per_trace=SPANS, seed=2).make(Signal.TRACES, number, 1_760_000_000_000_000_000)


@pytest.mark.parametrize("name", ["free", "pro"])
def test_an_example_of_a_tier_runs_as_it_stands_and_delivers_traces(name, tmp_path, sink, monkeypatch):
    with Agent(BACKEND.format(port=sink.server_port), tmp_path, name="backend") as backend:
        monkeypatch.setenv("JAEGER", f"127.0.0.1:{backend.port('grpc')}")
        monkeypatch.setenv("BACKEND", f"http://127.0.0.1:{backend.port('http')}")
        with Agent(example(name), tmp_path) as agent:
            assert agent.wait_for("tier decided")["tier"] == name
            assert post(agent.port(), "/v1/traces", traces(100)) == 200
            assert agent.stop() == 0
            assert agent.wait_for("agent stopped")["dropped"] == 0
        assert backend.stop() == 0
    assert sink.spans >= SPANS  # the free tier keeps a tenth; pro sends to two backends
    if name == "pro":
        assert sink.spans == 2 * 100 * SPANS


def test_the_example_of_the_enterprise_tier_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("OTELWP_STATE", str(tmp_path))
    monkeypatch.setenv("WPOTEL_COLLECTOR_URL", "http://127.0.0.1:9")  # nobody listens: the journal keeps the traces
    with Agent(example("enterprise"), tmp_path) as agent:
        assert agent.wait_for("tier decided")["tier"] == "enterprise"
        assert post(agent.port(), "/v1/traces", BODY) == 200
        assert agent.stop() == 0
        stopped = agent.wait_for("agent stopped")
    assert (stopped["dropped"], stopped["kept_in_journal"]) == (0, SPANS)


def test_an_enterprise_agent_without_its_licence_still_encrypts_and_keeps_its_collector(tmp_path, monkeypatch):
    monkeypatch.setenv("OTELWP_STATE", str(tmp_path))
    monkeypatch.setenv("OTELWP_REQUIRE_LICENSE", "1")
    with Agent(example("enterprise"), tmp_path) as agent:
        agent.wait_for("component kept although it needs a higher tier", component="processors/encryption")
        agent.wait_for("component kept although it needs a higher tier", component="exporters/managed")
        agent.wait_for("processor bypassed because of the tier", component="processors/compression")
        agent.wait_for("component stopped because of the tier", component="extensions/remote_sampling")
        assert post(agent.port(), "/v1/traces", BODY) == 200
        assert agent.stop() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0


LICENSED = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors: {{batch: {{send_batch_size: 10000, timeout: 1h}}}}
exporters: {{otlp_http: {{endpoint: 'http://127.0.0.1:{port}'}}, otlp_http/2: {{endpoint: 'http://127.0.0.1:{port}'}}}}
extensions: {{health_check: {{endpoint: '127.0.0.1:{health}'}}}}
service:
  license: {{file: {file}, public_keys: [{public}]}}
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http, otlp_http/2]}}
"""


def license_of(port):
    (found,) = [each for each in json.loads(get(port, "/health/detailed")[1])["components"] if each["id"] == "license"]
    return found


def test_an_agent_runs_what_its_licence_permits_and_loses_nothing_when_that_changes(tmp_path, sink):
    file = tmp_path / "license.jwt"
    file.write_text(ISSUER.issue(tier="pro"))
    health = free_port()
    config = LICENSED.format(port=sink.server_port, file=file, public=ISSUER.public, health=health)
    with Agent(config, tmp_path, metrics=True) as agent:
        assert license_of(health)["details"]["tier"] == "pro"
        sink.gate.clear()
        assert post(agent.port(), "/v1/traces", BODY) == 200  # waits in `batch` for an hour

        file.write_text(ISSUER.issue(tier="free", iat=int(ISSUER.terms().iat) + 1))
        agent.reload()
        agent.wait_for("processor bypassed because of the tier", component="processors/batch")
        agent.wait_for("component stopped because of the tier", component="exporters/otlp_http/2")
        agent.wait_for("component kept although it needs a higher tier", component="exporters/otlp_http")
        assert post(agent.port(), "/v1/traces", BODY) == 200
        sink.gate.set()
        agent.wait_for("exporter stops: its queue is empty", component="exporters/otlp_http/2")
        details = license_of(health)["details"]
        assert (details["tier"], details["changes"][-1]) == ("free", "processors/batch bypassed")
        assert agent.metric("otelwp_tier_steps", action="bypassed") == 1
        assert post(agent.port(), "/v1/traces", BODY) == 200

        file.write_text(ISSUER.issue(tier="pro", iat=int(ISSUER.terms().iat) + 2))
        agent.reload()
        agent.wait_for("component restored", component="processors/batch")
        assert post(agent.port(), "/v1/traces", BODY) == 200
        assert agent.stop() == 0
        assert agent.wait_for("agent stopped")["dropped"] == 0
    assert sink.spans == SPANS * (2 + 1 + 1 + 2), "requests before and after the free tier go to both exporters"
