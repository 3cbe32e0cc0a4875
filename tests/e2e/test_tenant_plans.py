"""Tenants of two plans on a managed collector with a real control store: each gets what its tier enables."""

import http.client
import json
import time
from contextlib import closing

from otelwp_agent.codecs.compact_jws import decode_base64url
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.envelope import SealedHeader, seal
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite
from tests.kit.agent import PATIENCE
from tests.kit.managed_site import SPANS, Site
from tests.kit.span_backend import a_request, span_backend


def two_backends(first, second):
    """Send traces to two backends, of which a tenant of tier free gets the first one only."""

    def change(config):
        config["exporters"] = {
            "otlp_http": {"endpoint": f"http://127.0.0.1:{first.port}"},
            "otlp_http/2": {"endpoint": f"http://127.0.0.1:{second.port}"},
        }
        for pipeline in config["service"]["pipelines"].values():
            pipeline["exporters"] = ["otlp_http", "otlp_http/2"]

    return change


def send(site, key, body, media_type="application/x-protobuf"):
    """Return status and body of the answer."""
    headers = {"content-type": media_type, "x-api-key": key}
    with closing(http.client.HTTPConnection("127.0.0.1", site.agent.port("http"), timeout=PATIENCE)) as connection:
        connection.request("POST", "/v1/traces", body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def sealed(site, tenant, *names):
    key = site.sealing_key()
    recipient = Recipient(key["key_id"], SealingSuite.X25519, decode_base64url(key["public_key"]))
    plain = a_request(*names).SerializeToString()
    header = SealedHeader(
        customer=tenant, time=int(time.time() * 1000), signal=Signal.TRACES, items=len(names), plain_size=len(plain)
    )
    return seal(recipient, header, plain), "application/vnd.otelwp.sealed"


def test_the_plan_decides_and_a_changed_plan_counts_without_a_restart(tmp_path):
    with span_backend() as first, span_backend() as second:
        site = Site(tmp_path, change=two_backends(first, second))
        with site.agent:
            keys = {}
            for tenant, plan in (("small", "free"), ("large", "enterprise")):
                site.cli("tenants", "create", tenant, "--plan", plan, json_output=False)
                keys[tenant] = site.cli("api-keys", "create", tenant)["key"]
            for key in keys.values():
                assert site.answers_at_last(key, 200)
            first.wait_for(2 * SPANS)
            second.wait_for(SPANS)
            first.requests.clear()
            second.requests.clear()

            for tenant, key in keys.items():
                assert send(site, key, a_request(tenant).SerializeToString())[0] == 200
            first.wait_for(2)
            second.wait_for(1)
            assert (first.spans(), second.spans()) == ({"small": 1, "large": 1}, {"large": 1})
            left_out = {
                name: site.agent.metric("otelwp_tenant_bypassed_items", tenant="small", component=name)
                for name in ("processors/batch", "exporters/otlp_http/2", "processors/memory_limiter")
            }
            assert left_out["processors/batch"] == left_out["exporters/otlp_http/2"] > 0
            assert left_out["processors/memory_limiter"] == 0
            assert site.agent.metric("otelwp_tenant_bypassed_items", tenant="large") == 0

            assert send(site, keys["large"], *sealed(site, "large", "secret"))[0] == 200
            for _ in range(3):
                status, answer = send(site, keys["small"], *sealed(site, "small", "secret"))
                problem = json.loads(answer)
                assert (status, problem["reason"], problem["refresh"]) == (403, "plan_tier", "plan")
                assert "need a plan of tier `enterprise`" in problem["detail"]
            assert site.agent.metric("otelwp_tenant_refused_requests", tenant="small", receiver="otlp") == 3

            site.cli("tenants", "set-plan", "small", "enterprise", json_output=False)
            end = time.monotonic() + PATIENCE
            while send(site, keys["small"], *sealed(site, "small", "opened"))[0] == 403 and time.monotonic() < end:
                time.sleep(0.05)  # the agent reads the store in the background, without an event
            second.wait_for(3)
            assert second.spans() == {"large": 1, "secret": 1, "opened": 1}
            site.agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)
