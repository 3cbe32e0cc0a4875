"""Whole agents with and without a licence, and with a licence server that is another agent."""

import json
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from otelwp_agent.licensing.signatures import private_pem, sign_license
from otelwp_agent.licensing.terms import LicenseTerms
from tests.kit.agent import Agent, free_port
from tests.licensing.issuer import DAY, ISSUER

AGENT = """
extensions: {{health_check: {{endpoint: '127.0.0.1:{health}'}}}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{debug: {{}}}}
service:
  extensions: [health_check]
  {more}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""
SERVER = """
extensions:
  control_store: {{url: '{url}', create: true}}
  license_server: {{endpoint: '127.0.0.1:0', signing_key_file: '{key}'}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{debug: {{}}}}
service:
  extensions: [control_store, license_server]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


def licence_of(port):
    """Return the entry `license` of `/health/detailed`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/detailed", timeout=60) as answer:
        (found,) = [each for each in json.load(answer)["components"] if each["id"] == "license"]
    return found


@pytest.mark.parametrize(
    ("more", "variable", "expected"),
    [
        ("", "", ("enterprise", "evaluation")),
        ("tier: pro", "0", ("pro", "configured")),
        ("tier: pro", "1", ("free", "required")),
    ],
)
def test_without_a_licence_one_line_says_the_tier_and_no_cryptography_is_loaded(
    tmp_path, monkeypatch, more, variable, expected
):
    monkeypatch.setenv("OTELWP_REQUIRE_LICENSE", variable)
    health = free_port()
    with Agent(AGENT.format(more=more, health=health), tmp_path) as agent:
        (line,) = [each for each in agent.events if each["event"] == "tier decided"]
        assert (line["level"], line["tier"], line["basis"]) == ("info", *expected)
        shown = licence_of(health)
        assert (shown["status"], shown["details"]["tier"], shown["details"]["basis"]) == ("healthy", *expected)
        assert shown["message"] == line["reason"]
        assert "cryptography" not in Path(f"/proc/{agent.pid}/maps").read_text()
        assert agent.stop() == 0


def cli(url, *words):
    command = [Path(sys.executable).with_name("otelwp-agent"), "licenses", *words, "--store", url]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_an_agent_is_renewed_by_a_licence_server_until_its_licence_is_revoked(tmp_path):
    url, key = f"sqlite:///{tmp_path}/control.db", tmp_path / "signing.pem"
    key.write_bytes(private_pem(ISSUER.private))
    last = datetime.now(UTC).date() + timedelta(days=100)
    ended = LicenseTerms("Shop Ltd", "pro", last).signable("shop-1", time.time() - 60 * DAY)  # and its grace has ended
    file, state = tmp_path / "license.jwt", tmp_path / "state" / "license.json"
    file.write_text(sign_license(ended, ISSUER.private))
    with Agent(SERVER.format(url=url, key=key), tmp_path, name="server") as server:
        cli(url, "set", "shop-1", "--customer", "Shop Ltd", "--tier", "pro", "--expires", str(last))
        port = server.wait_for("licence server listening")["port"]
        license_ = f"{{file: '{file}', url: 'http://127.0.0.1:{port}', public_keys: ['{ISSUER.public}'], "
        config = AGENT.format(more=f"license: {license_}state_file: '{state}'}}", health=free_port())
        with Agent(config, tmp_path) as agent:
            line = agent.wait_for("tier decided")
            assert (line["level"], line["tier"], line["basis"]) == ("info", "pro", "license")
            assert agent.stop() == 0
        assert "signing" not in state.read_text()
        cli(url, "revoke", "shop-1", "--reason", "not paid")
        state.unlink()
        time.sleep(5.1)  # the server keeps what it has read for five seconds
        with Agent(config, tmp_path) as agent:
            line = agent.wait_for("tier decided")
            assert (line["level"], line["tier"], line["basis"]) == ("error", "free", "lapsed")
            assert "not paid" in line["reason"]
            assert agent.stop() == 0
        assert server.stop() == 0
    with Agent(config, tmp_path) as agent:  # the server is away, but the signed revocation is in the state file
        assert "not paid" in agent.wait_for("tier decided")["reason"]
        assert agent.stop() == 0
