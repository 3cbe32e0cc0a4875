"""The requests of a plugin and of an operator, against a whole agent that writes the telemetry to files."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.kit.agent import Agent
from tests.kit.fleet import EVENT, HEARTBEAT

CONFIG = """
extensions:
  control_store: {{url: '{url}', create: true}}
  api_key/heartbeat: {{scope: heartbeat}}
  admin_api: {{endpoint: '127.0.0.1:0'}}
  fleet: {{}}
receivers:
  heartbeat: {{endpoint: '127.0.0.1:0', auth: {{authenticator: api_key/heartbeat}}}}
exporters:
  file/metrics: {{path: '{folder}/metrics.json'}}
  file/logs: {{path: '{folder}/logs.json'}}
service:
  tier: enterprise
  extensions: [control_store, api_key/heartbeat, admin_api, fleet]
  pipelines:
    metrics: {{receivers: [heartbeat], exporters: [file/metrics]}}
    logs: {{receivers: [heartbeat], exporters: [file/logs]}}
"""


def cli(url, *words):
    command = [Path(sys.executable).with_name("otelwp-agent"), *words, "--store", url, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def call(url, token, body=None):
    """Send a request; return the status and the JSON of the answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_plugin_is_registered_controlled_and_observed(tmp_path):
    url = f"sqlite:///{tmp_path}/control.db"
    cli(url, "control", "migrate")
    cli(
        url,
        "tenants",
        "create",
        "acme",
        "--plan",
        "enterprise",
        "--name",
        "My Shop",
        "--attribute",
        "email=merchant@shop.example",
    )
    key = cli(url, "api-keys", "create", "acme", "--scope", "heartbeat")["key"]
    token = cli(url, "operators", "add", "ops", "--role", "operator")["token"]
    with Agent(CONFIG.format(url=url, folder=tmp_path), tmp_path) as agent:
        plugin = f"http://127.0.0.1:{agent.port(component='heartbeat')}/v1/plugins"
        admin = f"http://127.0.0.1:{agent.wait_for('admin API listening')['port']}/api/v1/plugins"
        status, reply = call(f"{plugin}/heartbeat", key, HEARTBEAT)
        assert (status, reply["status"], reply["toggles"]["enable_debug"]) == (200, "ok", False)
        id_ = reply["installation_id"]
        assert call(f"{plugin}/event", key, EVENT) == (200, {"status": "ok"})
        ((_, (listed,))) = call(f"{admin}/list?status=active&cms=woocommerce", token)
        assert (listed["id"], listed["merchant_name"], listed["errors_24h"]) == (id_, "My Shop", 1)
        toggle = {"toggle_key": "enable_debug", "toggle_value": True, "reason": "Ticket 7"}
        assert call(f"{admin}/{id_}/toggle", token, toggle)[1]["toggle_value"] is True
        assert call(f"{plugin}/heartbeat", key, HEARTBEAT)[1]["toggles"]["enable_debug"] is True
        assert call(f"{plugin}/heartbeat", key, HEARTBEAT | {"merchant_id": "other"})[0] == 403
        assert call(f"{admin}/stats/overview", token)[1]["active_count"] == 1
        assert agent.stop() == 0
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    names = {
        metric["name"]
        for request in metrics
        for resource in request["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert names == {"plugin.up", "plugin.errors_last_hour"}
    (request,) = [json.loads(line) for line in (tmp_path / "logs.json").read_text().splitlines()]
    assert request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["eventName"] == "plugin.payment_failed"
