"""A real SDK and a real Collector authenticate at the agent, by API key, bearer token and password."""

import base64
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from tests.e2e import otlp
from tests.e2e.conftest import backend
from tests.interop.collector import Collector
from tests.interop.process import eventually
from tests.kit.agent import Agent, free_port
from tests.kit.certificates import Authority
from tests.kit.tenants import Tenants

pytestmark = pytest.mark.interop

WAYS = ("key", "key_as_bearer", "bearer", "basic")
"""How a sender authenticates: an API key in its own header or as a bearer token, a bearer token, user and password."""
TENANTS = {"key": "acme", "key_as_bearer": "acme", "bearer": "none", "basic": "none"}
"""Tenant of the right credential: only API keys have one. The exporter sends `none` if there is no tenant."""
SERVERS = {"key": "api_key", "key_as_bearer": "api_key", "bearer": "bearertokenauth", "basic": "basicauth"}
BATCHES = 3

# gRPC has TLS, because the Collector does not add credentials to connections without it.
AGENT = """
extensions:
  control_store: {{url: '{tenants.url}', pepper_file: '{tenants.pepper_file}'}}
  api_key:
  bearertokenauth: {{tokens: [t0ken, other]}}
  basicauth: {{htpasswd: {{inline: 'shop:s3cret'}}}}
  headers_setter: {{headers: [{{key: x-tenant, from_tenant: true, default_value: none}}]}}
receivers:
  otlp/api_key:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: api_key}}}}
      grpc: {{endpoint: '127.0.0.1:0', tls: {tls}, auth: {{authenticator: api_key}}}}
  otlp/bearertokenauth:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: bearertokenauth}}}}
      grpc: {{endpoint: '127.0.0.1:0', tls: {tls}, auth: {{authenticator: bearertokenauth}}}}
  otlp/basicauth:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: basicauth}}}}
      grpc: {{endpoint: '127.0.0.1:0', tls: {tls}, auth: {{authenticator: basicauth}}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', auth: {{authenticator: headers_setter}}}}
service:
  extensions: [control_store, api_key, bearertokenauth, basicauth, headers_setter]
  pipelines:
    traces: {{receivers: [otlp/api_key, otlp/bearertokenauth, otlp/basicauth], exporters: [otlp_http]}}
"""

COLLECTOR = """
extensions:
  bearertokenauth/right: {{token: '{right}'}}
  bearertokenauth/wrong: {{token: '{wrong}'}}
  basicauth/right: {{client_auth: {{username: shop, password: s3cret}}}}
  basicauth/wrong: {{client_auth: {{username: shop, password: wr0ng}}}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}
exporters:
  {exporter}/right: {{{target}, retry_on_failure: {{initial_interval: 100ms}}, {right_settings}}}
  {exporter}/wrong: {{{target}, retry_on_failure: {{initial_interval: 100ms}}, {wrong_settings}}}
service:
  extensions: [bearertokenauth/right, bearertokenauth/wrong, basicauth/right, basicauth/wrong]
  pipelines: {{traces: {{receivers: [otlp], exporters: [{exporter}/right, {exporter}/wrong]}}}}
"""
"""Retries after 100 ms, so that a retry of a refused batch would show soon."""


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """Return an agent that authenticates in every way, its backend, and a right and a wrong credential for each way."""
    folder = tmp_path_factory.mktemp("gate")
    with Tenants(f"sqlite:///{folder}/control.db", folder / "pepper") as tenants, backend() as sink:
        key = tenants.add("acme")
        revoked, text = tenants.key("acme")
        tenants.revoke(revoked)
        authority = Authority(folder)
        pair = authority.sign()
        tls = f"{{cert_file: '{pair.cert_file}', key_file: '{pair.key_file}'}}"
        with Agent(AGENT.format(tenants=tenants, sink=sink.server_port, tls=tls), folder, metrics=True) as agent:
            keys = key, text
            credentials = {
                "key": keys,
                "key_as_bearer": keys,
                "bearer": ("t0ken", "t0kem"),
                "basic": ("s3cret", "wr0ng"),
            }
            yield SimpleNamespace(agent=agent, sink=sink, ca_file=authority.ca_file, credentials=credentials)


def headers(way, credential):
    """Return the headers that an SDK is configured with."""
    if way == "key":
        return {"x-api-key": credential}
    if way == "basic":
        return {"authorization": "Basic " + base64.b64encode(f"shop:{credential}".encode()).decode()}
    return {"authorization": f"Bearer {credential}"}


def refused(gate, way, protocol):
    """Return how many requests the agent has refused because of their credentials."""
    labels = {"receiver": f"otlp/{SERVERS[way]}", "transport": protocol, "reason": "unauthenticated"}
    return gate.agent.metric("otelwp_receiver_refused_requests", **labels)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("way", WAYS)
def test_an_sdk_is_accepted_with_the_right_credential_and_gives_up_with_a_wrong_one(gate, way, protocol):
    port = gate.agent.port(protocol, f"otlp/{SERVERS[way]}")
    spans = otlp.make("traces", "shop")
    arrived, before = gate.sink.tenants.copy(), refused(gate, way, protocol)

    def export(credential):
        given = headers(way, credential)
        if protocol == "grpc":
            trust = grpc.ssl_channel_credentials(Path(gate.ca_file).read_bytes())
            exporter = otlp.SIGNALS["traces"].grpc(f"127.0.0.1:{port}", credentials=trust, headers=given)
        else:
            exporter = otlp.SIGNALS["traces"].http(f"http://127.0.0.1:{port}/v1/traces", headers=given)
        try:
            return exporter.export(spans).name
        finally:
            exporter.shutdown()

    right, wrong = gate.credentials[way]
    assert [export(right) for _ in range(BATCHES)] == ["SUCCESS"] * BATCHES
    assert [export(wrong) for _ in range(BATCHES)] == ["FAILURE"] * BATCHES
    arrived[TENANTS[way]] += BATCHES * len(spans)
    assert eventually(gate.sink.tenants.copy, lambda now: now == arrived) == arrived
    assert refused(gate, way, protocol) - before == BATCHES, "an SDK sends a refused batch once"


@pytest.mark.usefixtures("the_collector")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("way", WAYS)
def test_a_collector_is_accepted_with_the_right_credential_and_drops_with_a_wrong_one(gate, way, protocol, tmp_path):
    port, own = gate.agent.port(protocol, f"otlp/{SERVERS[way]}"), free_port()
    right, wrong = gate.credentials[way]
    exporter, target = {
        "http": ("otlphttp", f"endpoint: 'http://127.0.0.1:{port}'"),
        "grpc": ("otlp", f"endpoint: '127.0.0.1:{port}', tls: {{ca_file: '{gate.ca_file}'}}"),
    }[protocol]

    def settings(name, credential):
        if way == "key":
            return f"headers: {{X-API-Key: '{credential}'}}"
        return f"auth: {{authenticator: {'basicauth' if way == 'basic' else 'bearertokenauth'}/{name}}}"

    config = COLLECTOR.format(
        port=own,
        exporter=exporter,
        target=target,
        right=right,
        wrong=wrong,
        right_settings=settings("right", right),
        wrong_settings=settings("wrong", wrong),
    )
    spans = otlp.make("traces", "shop")
    arrived, before = gate.sink.tenants.copy(), refused(gate, way, protocol)
    with Collector(config, tmp_path) as collector:
        for _ in range(BATCHES):
            assert otlp.export("traces", "http", own, spans)
        arrived[TENANTS[way]] += BATCHES * len(spans)
        assert eventually(gate.sink.tenants.copy, lambda now: now == arrived) == arrived
        expected = before + BATCHES
        assert eventually(lambda: refused(gate, way, protocol), lambda now: now >= expected) == expected
        time.sleep(2)  # many times the wait before a retry
        assert refused(gate, way, protocol) == expected, "a Collector sends a refused batch once"
        log = collector.log.read_text()
    status = {"http": "HTTP Status Code 401", "grpc": "code = Unauthenticated"}[protocol]
    dropped = [line for line in log.splitlines() if "Permanent error" in line and status in line]
    assert len(dropped) >= BATCHES, log
    assert wrong not in gate.agent.output
