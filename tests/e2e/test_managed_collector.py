"""`examples/managed_collector.yaml` as a user runs it: an agent, the commands, the admin API, and senders with keys."""

import grpc
import pytest

from tests.kit.managed_site import SPANS, Site


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
