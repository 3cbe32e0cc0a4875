"""`examples/managed_collector.yaml` as a user runs it: an agent, the commands, the admin API, and senders with keys."""

import http.client
import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import yaml

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent

EXAMPLE = Path(__file__).parents[2] / "examples/managed_collector.yaml"
SPANS = 4
BODY = Sample(spans_per_trace=SPANS, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Site:
    """The agent of the example, on free ports and in a folder of its own."""

    def __init__(self, folder):
        config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
        config["extensions"]["control_store"]["url"] = f"sqlite:///{folder}/state/control.db"
        config["extensions"]["rate_limiter"]["ban"]["failures"] = 1000
        for name in ("admin_api", "health_check"):
            config["extensions"][name]["endpoint"] = "127.0.0.1:0"
        for protocol in config["receivers"]["otlp"]["protocols"].values():
            protocol["endpoint"] = "127.0.0.1:0"
        config["service"]["control_socket"] = f"{folder}/control.sock"
        self.agent = Agent(yaml.safe_dump(config), folder)
        self.token = ""

    def cli(self, *words, json_output=True):
        command = [Path(sys.executable).with_name("otelwp-agent"), *words, "--config", self.agent.file]
        done = subprocess.run(
            [*command, *(["--json"] if json_output else [])], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if json_output else done.stdout.strip()

    def admin(self, method, path, body=None):
        """Return the status and the JSON of an answer of the admin API."""
        port = self.agent.wait_for("admin API listening")["port"]
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def post(self, key, header="authorization"):
        value = f"Bearer {key}" if header == "authorization" else key
        headers = {"content-type": "application/x-protobuf", header: value}
        with closing(http.client.HTTPConnection("127.0.0.1", self.agent.port("http"), timeout=PATIENCE)) as connection:
            connection.request("POST", "/v1/traces", BODY, headers)
            response = connection.getresponse()
            response.read()
            return response.status

    def call(self, key):
        with grpc.insecure_channel(f"127.0.0.1:{self.agent.port('grpc')}") as channel:
            try:
                channel.unary_unary(EXPORT)(BODY, timeout=PATIENCE, metadata=(("x-api-key", key),))
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    def answers_at_last(self, key, wanted):
        """Wait until the agent has read a change of the key from the store; return whether it answers as `wanted`."""
        end = time.monotonic() + PATIENCE
        while (status := self.post(key)) != wanted and time.monotonic() < end:
            time.sleep(0.05)  # the agent reads the store in the background, without an event
        return status == wanted


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    with site.agent:
        site.cli("tenants", "create", "acme", json_output=False)
        site.token = site.cli("operators", "add", "alice", "--role", "operator")["token"]
        yield site


def test_from_a_key_to_accepted_requests_and_to_a_refused_key(site):
    key = site.cli("api-keys", "create", "acme")["key"]
    assert site.answers_at_last(key, 200)
    assert site.post(key, header="x-api-key") == 200
    assert site.call(key) is grpc.StatusCode.OK

    wrong = key[:-9] + ("a" if key[-9] != "a" else "b") + key[-8:]
    assert site.post(wrong) == site.post("") == 401
    assert site.call(wrong) is site.call("") is grpc.StatusCode.UNAUTHENTICATED
    assert key not in site.agent.output
    assert wrong not in site.agent.output

    tenants = [line for line in site.cli("audit")["lines"] if line["kind"] == "tenant"]
    assert [(line["name"], line["accepted"]) for line in tenants] == [("acme", 3 * SPANS)]

    id_ = site.cli("api-keys", "list", "acme")[0]["id"]
    status, revoked = site.admin("POST", f"/tenants/acme/keys/{id_}/revoke")
    assert (status, revoked["id"]) == (200, id_)
    assert site.answers_at_last(key, 401)
    assert site.call(key) is grpc.StatusCode.UNAUTHENTICATED


def test_both_keys_are_accepted_after_a_rotation(site):
    status, old = site.admin("POST", "/tenants/acme/keys", {"name": "main"})
    assert status == 201
    assert site.answers_at_last(old["key"], 200)
    status, new = site.admin("POST", f"/tenants/acme/keys/{old['id']}/rotate", {"grace": 3600})
    assert status == 201
    assert site.answers_at_last(new["key"], 200)
    assert site.post(old["key"]) == 200
    assert site.call(old["key"]) is site.call(new["key"]) is grpc.StatusCode.OK
    actions = {row["action"]: row["actor"] for row in site.cli("audit", "log", "list")}
    assert actions["key.rotate"] == actions["key.retire"] == "operator:alice"
    assert site.cli("audit", "log", "verify")["intact"]
