"""The heartbeat of the plugin on a real WordPress, and what the agent's response changes."""

import json
import threading
import time

import pytest

from tests.kit.agent import Agent, free_port, post
from tests.kit.traffic import traffic
from tests.wordpress.kit import PATIENCE, beat

pytestmark = pytest.mark.interop


REPLY = {
    "status": "ok",
    "tier": "pro",
    "features": ["adaptive_sampling", "Batch!"],
    "sampling": {"rate": 0.25, "traces_per_second": 5},
    "valid_for": 600,
}


STATE = """
    return ['rate' => Otelwp\\Agent::sampling_rate(), 'tier' => Otelwp\\Agent::tier(),
            'features' => Otelwp\\Agent::features()];
"""


def test_the_heartbeat(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps(REPLY))
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}
    assert beat(site) == "heartbeat"
    method, _, headers, body = agent.seen[0]
    report = json.loads(body)
    assert (method, headers["content-type"]) == ("POST", "application/json")
    assert {"cms", "plugin_version", "php_version", "wordpress_version", "server_info", "environment"} <= report.keys()
    assert report["service_name"] == "shop"
    assert "authorization" not in headers
    assert site.ask(STATE) == {"rate": 0.25, "tier": "pro", "features": ["adaptive_sampling", "batch"]}
    # The site's own rate is the most; what was said is forgotten when its time is over.
    with site.changed(sampling_rate=0.1):
        assert site.ask(STATE)["rate"] == 0.1
    site.ask("$s = get_option('otelwp_agent'); $s['until'] = time() - 1; return update_option('otelwp_agent', $s);")
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}


def test_the_heartbeat_takes_headers(site, agent):
    headers = {"X-OTelWP-Sampling-Rate": "0.5", "X-OTelWP-Tier": "enterprise"}
    agent.answers["/v1/plugins/heartbeat"] = (200, headers, "{}")
    beat(site)
    assert site.ask(STATE) == {"rate": 0.5, "tier": "enterprise", "features": []}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no json",
        "[]",
        '{"tier": "gold", "features": "all", "sampling": {"rate": 7}, "toggles": []}',
        "null",
        '{"sampling": 1}',
    ],
)
def test_nonsense_changes_nothing(site, agent, reply):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, reply)
    assert beat(site) == "heartbeat"
    assert site.ask(STATE) == {"rate": 1, "tier": "free", "features": []}


def test_an_agent_without_heartbeats_is_asked_for_its_health(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    assert beat(site) == "health"
    assert [path for _, path, _, _ in agent.seen] == ["/v1/plugins/heartbeat", "/health"]


def test_rates_as_jaegers_clients_ask_for_them(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    probabilistic = {"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.125}}
    agent.answers["/sampling"] = (200, {}, json.dumps(probabilistic))
    with site.changed(sampling_url=f"{agent.url}/sampling"):
        beat(site)
    assert agent.seen[-1][1] == "/sampling?service=shop"
    assert site.ask(STATE)["rate"] == 0.125


RATES = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors:
  adaptive_sampling: {{target: {{traces_per_second: 1}}, always_keep: {{first_seen: {{enabled: false}}}}}}
exporters: {{debug: {{verbosity: basic}}}}
extensions: {{remote_sampling: {{endpoint: '127.0.0.1:{port}', min_rate: 0.125, settle: 10ms}}}}
service:
  extensions: [remote_sampling]
  pipelines: {{traces: {{receivers: [otlp], processors: [adaptive_sampling], exporters: [debug]}}}}
"""


def test_a_rate_from_what_our_agent_keeps(site, agent, tmp_path):
    """The sampler is over its target, so the plugin is asked for the least.

    On a busy machine a rate may be told before much has come; it must not have to settle for two minutes then.
    """
    agent.answers["/v1/plugins/heartbeat"] = (404, {}, "")
    port = free_port()
    url = f"http://127.0.0.1:{port}/sampling"
    with Agent(RATES.format(port=port), tmp_path) as ours, site.changed(sampling_url=url):
        beat(site)
        assert site.ask(STATE)["rate"] == 1
        end = time.monotonic() + PATIENCE
        while site.ask(STATE)["rate"] != 0.125:
            assert time.monotonic() < end
            for _, body, _ in traffic(5, 100):  # again each time: without traffic the rate rises
                assert post(ours.port(), "/v1/traces", body) == 200
            beat(site)


def test_an_agent_that_pauses_the_plugin(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps({"toggles": {"pause": True}}))
    beat(site)
    site.wordpress.visit("/")
    assert site.listener.read() == []
    site.ask("return update_option('otelwp_agent', []);")
    site.after_marker()


def test_the_budget_is_shared_by_all_processes(site, agent):
    agent.answers["/v1/plugins/heartbeat"] = (200, {}, json.dumps({"sampling": {"traces_per_second": 0.05}}))
    beat(site)
    for _ in range(6):
        site.wordpress.visit("/")
    time.sleep(0.2)  # late datagrams would be there by now
    assert len(site.listener.read()) <= 2, "one in twenty seconds, and one where a window ends"


def test_an_agent_that_does_not_answer(site, agent):
    agent.__exit__()
    try:
        assert "refused" in beat(site).lower()
        assert site.ask("return Otelwp\\Agent::state()['problem'];")
    finally:
        agent.thread = threading.Thread(target=lambda: None)
        agent.shutdown = lambda: None
        agent.thread.start()


def test_the_heartbeat_is_scheduled_once_and_ends_with_the_plugin(site):
    scheduled = "return count(array_filter(_get_cron_array(), fn($jobs) => isset($jobs['otelwp_heartbeat'])));"
    assert site.ask(scheduled) == 1
    site.wordpress.deactivate("otelwp")
    assert site.ask(scheduled) == 0
    site.wordpress.activate("otelwp")
    assert site.ask(scheduled) == 1
