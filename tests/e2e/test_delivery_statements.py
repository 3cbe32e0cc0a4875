"""Statements of a managed collector that is killed: they are served to the tenant, verify, and state the kill."""

import http.client
import json
import signal
from contextlib import closing
from functools import partial

import pytest
import yaml

from tests.e2e.test_dead_letters import Backend, span, until
from tests.kit.agent import PATIENCE, Agent
from tests.kit.commands import run_command
from tests.kit.statement_files import an_hour_passes

SPAN = span("page")


def config(folder, sink):
    return {
        "extensions": {
            "control_store": {"url": f"sqlite:///{folder}/control.db", "create": True, "refresh_interval": "20ms"},
            "api_key": {"store": "control_store"},
            "admin_api": {"endpoint": "127.0.0.1:0"},
            "delivery_statements": {
                "file": f"{folder}/statements.db",
                "key_file": f"{folder}/key.pem",
                "agent": "edge",
                "admin": "admin_api",
                "checkpoint_interval": "50ms",
            },
        },
        "receivers": {
            "otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:0", "auth": {"authenticator": "api_key"}}}}
        },
        "processors": {"batch": {"timeout": "10ms"}},
        "exporters": {
            "otlp_http": {"endpoint": f"http://127.0.0.1:{sink}", "retry_on_failure": {"initial_interval": "50ms"}}
        },
        "service": {
            "extensions": ["control_store", "api_key", "admin_api", "delivery_statements"],
            "journal": {"directory": f"{folder}/journal"},
            "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp_http"]}},
        },
    }


def post(agent, key, count):
    with closing(http.client.HTTPConnection("127.0.0.1", agent.port(), timeout=PATIENCE)) as connection:
        for _ in range(count):
            headers = {"content-type": "application/x-protobuf", "x-api-key": key}
            connection.request("POST", "/v1/traces", SPAN, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200


def statements(agent, key):
    port = agent.wait_for("admin API listening")["port"]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/api/v1/tenants/acme/statements", headers={"x-api-key": key})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return [each["text"] for each in answer["items"]]


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.close()


def test_after_kills_the_tenant_gets_a_chain_that_verifies_and_states_them(tmp_path, backend):
    public = run_command("statement", "new-key", tmp_path / "key.pem").stdout.strip()
    settings = yaml.safe_dump(config(tmp_path, backend.port))
    key = ""
    for life in range(2):
        with Agent(settings, tmp_path) as agent:
            if not key:
                done = run_command("tenants", "create", "acme", "--config", agent.file)
                assert done.returncode == 0, done.stderr
                scopes = ["--scope", "ingest", "--scope", "usage"]
                created = run_command("api-keys", "create", "acme", *scopes, "--json", "--config", agent.file)
                assert created.returncode == 0, created.stderr
                key = json.loads(created.stdout)["key"]
                until(partial(_accepted, agent, key))
            post(agent, key, 20)
            until(lambda want=20 * (life + 1): len(backend.spans) >= want)
            audited = json.loads(run_command("audit", "--json", "--config", agent.file).stdout)
            assert audited["balances"]
            agent.signal(signal.SIGKILL)
        an_hour_passes(tmp_path)
    with Agent(settings, tmp_path) as agent:
        until(lambda: len(statements(agent, key)) == 2)
        texts = statements(agent, key)
        assert agent.stop() == 0
    file = tmp_path / "statements.txt"
    file.write_text("\n".join(texts))
    done = run_command("statement", "verify", file, "--key", public, "--last", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["chains"][0]["statements"]
    accepted = sum(each["pipelines"]["traces"]["accepted"] for each in found)
    (tenant,) = [line for line in audited["lines"] if line["kind"] == "tenant" and line["name"] == "acme"]
    assert accepted == tenant["accepted"]
    assert all(interruption["pipelines"] for each in found for interruption in each["interruptions"])
    assert sum(len(each["interruptions"]) for each in found) == 2
    file.write_text("\n".join([texts[1], texts[0]]))
    assert run_command("statement", "verify", file, "--key", public).returncode == 1


def _accepted(agent, key):
    """Return whether the agent has read the new key from the store."""
    try:
        post(agent, key, 1)
    except AssertionError:
        return False
    return True
