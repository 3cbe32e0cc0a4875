"""Requests that schemathesis makes from the OpenAPI document, sent to a running agent: it finds nothing.

Afterwards every change is in the audit log with the id of its request, and the log is intact until a row is altered.
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from peers import python

from otelwp_agent.control.store import Store
from tests.interop.process import have
from tests.kit.agent import Agent

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(1200),  # thousands of requests: minutes on a busy machine
]

HOOKS = Path(__file__).parent / "senders"
EXAMPLES = 15
"""Requests for each operation and phase."""
SEED = 1

CONFIG = """
extensions:
  control_store: {{url: '{url}', create: true}}
  admin_api: {{endpoint: '127.0.0.1:0', ban: {{failures: 1000000}}}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
exporters: {{debug: {{}}}}
service:
  tier: enterprise
  extensions: [control_store, admin_api]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""
MUTATING = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/control.db"


def cli(url, *words, status=0):
    command = [Path(sys.executable).with_name("otelwp-agent"), *words, "--store", url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_found_and_every_change_is_in_the_audit_log(url, tmp_path):
    interpreter = have(python.schemathesis)
    with Agent(CONFIG.format(url=url), tmp_path) as agent:
        token = cli(url, "operators", "add", "root", "--role", "admin")["token"]
        # The shortest names are those that schemathesis tries most often.
        cli(url, "tenants", "create", "0")
        cli(url, "operators", "add", "0", "--role", "viewer")
        address = agent.wait_for("admin API listening")["url"]
        command = [interpreter, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
        settings = ["-H", f"Authorization: Bearer {token}", "--max-examples", str(EXAMPLES), "--seed", str(SEED)]
        report = ["--report", "har", "--report-har-path", tmp_path / "requests.har", "--no-color"]
        environment = {**os.environ, "PYTHONPATH": str(HOOKS), "SCHEMATHESIS_HOOKS": "schemathesis_formats"}
        done = subprocess.run(
            [*command, *settings, *report], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-20_000:]
        assert agent.stop() == 0
        assert "request failed" not in agent.output

    entries = json.loads((tmp_path / "requests.har").read_text("utf-8"))["log"]["entries"]
    carried_out = [entry for entry in entries if is_change(entry)]
    assert {entry["request"]["method"] for entry in carried_out} == MUTATING
    refused = [entry for entry in entries if entry["response"]["status"] == 401]
    assert len(refused) < len(entries) / 10, "only those that leave the token out"
    logged = {row["request_id"] for row in cli(url, "audit", "log", "list", "--limit", "100000")}
    assert {request_id(entry) for entry in carried_out} <= logged
    others = {request_id(entry) for entry in entries if not is_change(entry)}
    assert not others & logged, "only changes are in the log"
    assert cli(url, "audit", "log", "verify")["intact"]
    alter(url)
    assert "altered" in cli(url, "audit", "log", "verify", status=1)["problems"][0]


def is_change(entry):
    """Return whether a request has changed something: it was carried out, and for the first time."""
    return (
        entry["request"]["method"] in MUTATING
        and 200 <= entry["response"]["status"] < 300
        and header(entry, "idempotency-replayed") is None
    )


def request_id(entry):
    return header(entry, "x-request-id")


def header(entry, name):
    found = [each["value"] for each in entry["response"]["headers"] if each["name"].lower() == name]
    return found[0] if found else None


def alter(url):
    """Change a row as somebody with the file can: the triggers are removed first."""
    database = sqlite3.connect(Store(url).path)
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_log'")
    for (name,) in names.fetchall():
        database.execute(f'DROP TRIGGER "{name}"')
    changed = database.execute("UPDATE audit_log SET actor = 'operator:mallory' WHERE sequence = 3")
    assert changed.rowcount == 1
    database.commit()
    database.close()
