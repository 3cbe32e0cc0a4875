"""Whole agents with `rate_limiter`: what senders see, and what the agent reports."""

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent

CONFIG = """
extensions:
  bearertokenauth: {{tokens: [one, two]}}
  rate_limiter:
    limits:
      - {{key: credential, requests_per_second: 0.01, burst: {burst}}}
      - {{key: address, items_per_second: 0.1, burst: 1000}}
    ban: {{failures: 5, duration: 1h}}
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:0
        auth: {{authenticator: bearertokenauth}}
        middlewares: [{{id: rate_limiter}}]
exporters: {{debug: }}
service:
  extensions: [bearertokenauth, rate_limiter]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


def send(port, token, spans=1):
    """Send spans with a token; return the status and the headers of the answer."""
    body = Sample(spans_per_trace=spans).make(Signal.TRACES, 1, time.time_ns())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token}"}
    connection.request("POST", "/v1/traces", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


@pytest.fixture
def agent(tmp_path):
    with Agent(CONFIG.format(burst=3), tmp_path, metrics=True) as agent:
        yield agent


def test_a_credential_above_its_limit_is_told_when_to_send_again(agent):
    port = agent.port()
    assert [send(port, "one")[0] for _ in range(3)] == [200] * 3
    status, headers = send(port, "one")
    assert status == 429
    assert 40 < int(headers["Retry-After"]) <= 100, "less what has passed since the first request"
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("3", "0")
    assert send(port, "two")[0] == 200
    agent.wait_for_metric("otelwp_rate_limiter_refused_requests", 1, limit="credential_requests")
    assert agent.metric("otelwp_rate_limiter_accepted_requests") == 4
    assert agent.metric("otelwp_receiver_refused_requests", reason="rate_limited") == 1


def test_items_are_limited_when_they_are_counted(agent):
    port = agent.port()
    assert send(port, "one", spans=900)[0] == 200
    status, headers = send(port, "one", spans=200)
    assert status == 429
    assert int(headers["Retry-After"]) == pytest.approx(1000, abs=60)
    assert send(port, "one", spans=100)[0] == 200
    assert agent.metric("otelwp_rate_limiter_refused_requests", limit="address_items") == 1


def test_wrong_credentials_lead_to_a_ban(agent):
    port = agent.port()
    assert [send(port, "wrong")[0] for _ in range(7)] == [401] * 5 + [403] * 2
    assert send(port, "one")[0] == 403
    agent.wait_for("address banned", address="127.0.0.1")


def test_a_reload_applies_new_limits(agent):
    port = agent.port()
    assert [send(port, "one")[0] for _ in range(4)] == [200] * 3 + [429]
    agent.reload(CONFIG.format(burst=10))
    agent.wait_for("configuration reloaded")
    end = time.monotonic() + PATIENCE
    while (status := send(port, "one")[0]) != 200 and time.monotonic() < end:
        pass  # connections that were accepted during the reload may still reach the old limits
    assert [status, *(send(port, "one")[0] for _ in range(14))] == [200] * 10 + [429] * 5


PLANS = """
extensions:
  control_store: {{url: "{store}"}}
  api_key: {{store: control_store}}
  rate_limiter: {{}}
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:0
        auth: {{authenticator: api_key}}
        middlewares: [{{id: rate_limiter}}]
exporters: {{debug: }}
service:
  extensions: [control_store, api_key, rate_limiter]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


def command(store, *words):
    """Run a command of the agent on the control store; return what it prints."""
    program = Path(sys.executable).with_name("otelwp-agent")
    return subprocess.run([program, *words, "--store", store], check=True, capture_output=True, text=True).stdout


def test_the_limits_of_a_tenant_are_those_of_its_plan(tmp_path):
    store = f"sqlite:///{tmp_path / 'control.db'}"
    command(store, "control", "migrate")
    command(store, "plans", "set", "small", "--tier=pro", "--limit=requests_per_second=0.01", "--limit=request_burst=2")
    command(store, "tenants", "create", "acme", "--plan=small")
    command(store, "tenants", "create", "other")
    acme, other = (
        json.loads(command(store, "api-keys", "create", each, "--json"))["key"] for each in ("acme", "other")
    )
    with Agent(PLANS.format(store=store), tmp_path, metrics=True) as agent:
        port = agent.port()
        assert [send(port, acme)[0] for _ in range(3)] == [200, 200, 429]
        assert [send(port, other)[0] for _ in range(5)] == [200] * 5
        agent.wait_for_metric("otelwp_rate_limiter_refused_requests", 1, tenant="acme")
        assert agent.metric("otelwp_rate_limiter_accepted_requests", tenant="other") == 5
