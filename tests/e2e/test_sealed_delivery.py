"""`examples/enterprise.yaml` and `examples/managed_collector.yaml`: two agents, from a key to spans of a backend."""

import http.client
import json
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.kit.agent import PATIENCE, free_port, get, post
from tests.kit.managed_site import Site, enterprise_agent, forwards_to, to, whole
from tests.kit.span_backend import TRACE, a_request, span_backend


@pytest.fixture
def backend():
    with span_backend() as backend:
        yield backend


@pytest.fixture
def site(tmp_path, backend):
    site = Site(tmp_path, change=lambda config: to(backend, config))
    with site.agent:
        site.cli("plans", "set", "limited", "--tier", "enterprise", "--limit", "sampling_rate=0.25", json_output=False)
        site.cli("tenants", "create", "acme", "--plan", "enterprise", json_output=False)
        site.key = site.cli("api-keys", "create", "acme")["key"]
        assert site.answers_at_last(site.key, 200)
        backend.wait_for(1)
        backend.requests.clear()
        yield site


def customer(site, tmp_path, *, port=0, **options):
    options = {"customer": "acme", "api_key": site.key, "sealing_key": site.sealing_key()} | options
    return enterprise_agent(tmp_path, port or site.agent.port("http"), **options)


def test_spans_arrive_as_they_were_sent(site, backend, tmp_path):
    request = a_request("cart", "checkout")
    with customer(site, tmp_path, change=whole) as agent:
        assert post(agent.port("http"), "/v1/traces", request.SerializeToString()) == 200
        backend.wait_for(2)
        ((_, body),) = backend.requests
        assert ExportTraceServiceRequest.FromString(body) == request
        agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)
        assert agent.metric("otelwp_processor_encryption_batches") == 1
        assert site.agent.metric("otelwp_receiver_sealed_requests", mode="open") == 1
        assert site.key not in agent.output
    lines = [line for line in site.cli("audit")["lines"] if line["kind"] == "tenant"]
    assert [line["name"] for line in lines] == ["acme"]


def test_the_plugin_posts_to_the_collector_without_an_agent(site, backend):
    """The founding form of the enterprise customer: Jaeger's JSON with the customer and its key in headers."""

    span = {
        "traceID": TRACE.hex(),
        "spanID": "1" * 16,
        "operationName": "wordpress.request",
        "startTime": 1e15,
        "duration": 5,
    }
    body = json.dumps({"data": [{"traceID": TRACE.hex(), "spans": [span | {"process": {"serviceName": "shop"}}]}]})
    headers = {"Content-Type": "application/json", "X-API-Key": site.key}
    answers = []
    for customer_id in ("acme", "globex"):
        connection = http.client.HTTPConnection("127.0.0.1", site.agent.port("http"), timeout=PATIENCE)
        connection.request("POST", "/v1/traces", body, headers | {"X-Customer-ID": customer_id})
        answers.append(connection.getresponse().status)
        connection.close()
    assert answers == [200, 403]
    backend.wait_for(1)
    assert backend.spans() == {"wordpress.request": 1}


def test_the_plan_limits_what_the_agent_samples_and_what_the_plugin_is_told(site, backend, tmp_path):
    site.cli("tenants", "set-plan", "acme", "limited", json_output=False)
    end = time.monotonic() + PATIENCE
    address = free_port()

    def serves(config):
        config["extensions"]["remote_sampling"]["endpoint"] = f"127.0.0.1:{address}"

    with customer(site, tmp_path, change=serves) as agent:
        port = agent.port("http")
        rate = 1.0
        while rate == 1.0 and time.monotonic() < end:
            for _ in range(20):
                request = a_request("page")
                request.resource_spans[0].scope_spans[0].spans[0].trace_id = time.time_ns().to_bytes(16, "big")
                assert post(port, "/v1/traces", request.SerializeToString()) == 200
            rate = json.loads(get(address, "/sampling?service=shop-of-acme")[1])["probabilisticSampling"][
                "samplingRate"
            ]
            time.sleep(0.2)  # the controller plans once a second
        assert rate == pytest.approx(0.5, rel=0.01)  # headroom 2
        assert agent.metric("otelwp_managed_sampling_rate", exporter="managed") == 0.25


def test_while_the_collector_does_not_know_the_key_the_agent_keeps_everything(site, backend, tmp_path):
    right = site.sealing_key()
    with customer(site, tmp_path, sealing_key=right | {"key_id": "unknown"}, change=whole) as agent:
        assert post(agent.port("http"), "/v1/traces", a_request("cart").SerializeToString()) == 200
        agent.wait_for("envelope refused", reason="unknown_key")
        assert agent.stop() == 0
    assert not backend.requests
    with customer(site, tmp_path, change=whole) as agent:
        backend.wait_for(1)
        assert backend.spans() == {"cart": 1}
        agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)


def test_a_collector_that_has_no_keys_forwards_to_the_customers_own_collector(site, backend, tmp_path):
    """Tenant-blind: enterprise agent → managed collector without keys → the customer's collector."""
    blind_folder = tmp_path / "blind"
    blind_folder.mkdir()

    blind = Site(blind_folder, change=lambda config: forwards_to(site, config))
    with blind.agent:
        blind.cli("tenants", "create", "acme", "--plan", "enterprise", json_output=False)
        key = blind.cli("api-keys", "create", "acme")["key"]
        assert blind.answers_at_last(key, 200)
        backend.wait_for(1)
        backend.requests.clear()
        request = a_request("cart", "checkout")
        agent = enterprise_agent(
            tmp_path,
            blind.agent.port("http"),
            customer="acme",
            api_key=key,
            sealing_key=site.sealing_key(),
            change=whole,
        )
        with agent:
            assert post(agent.port("http"), "/v1/traces", request.SerializeToString()) == 200
            backend.wait_for(2)
        ((_, body),) = backend.requests
        assert ExportTraceServiceRequest.FromString(body) == request
        assert blind.agent.metric("otelwp_receiver_sealed_requests", mode="forward") == 1
        lines = [line for line in blind.cli("audit")["lines"] if line["kind"] == "tenant"]
        assert [(line["name"], line["accepted"]) for line in lines] == [("acme", 2 + 4)]
