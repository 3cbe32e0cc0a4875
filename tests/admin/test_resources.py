"""The operations on the control store: who may call them, what they change, and what the audit log has afterwards."""

import json

import pytest

from otelwp_agent.admin.operation import PREFIX
from otelwp_agent.admin.resources import OPERATIONS
from otelwp_agent.control.operations.operators import Role

KEY = "a" * 16
PLUGIN = "00000000-0000-0000-0000-000000000000"
BODIES = {
    "createTenant": {"id": "new"},
    "changeTenant": {"name": "New"},
    "createKey": {},
    "rotateKey": {},
    "setPlan": {"tier": "pro"},
    "setLicense": {"customer": "Acme", "tier": "pro", "expires": "2030-12-31"},
    "revokeLicense": {"reason": "not paid"},
    "addOperator": {"name": "bob", "role": "viewer"},
    "setRole": {"role": "viewer"},
    "registerPluginVersion": {"cms": "woocommerce", "version": "1.3.5"},
    "setPluginToggle": {"toggle_key": "enable_debug", "toggle_value": True},
    "notifyPluginUpgrade": {"channel": "in-app"},
}
NAMES = {"tenant": "acme", "key": KEY, "plan": "nothing", "operator": "nobody", "license": "shop-1", "plugin": PLUGIN}


async def call(api, operation, by, names=NAMES):
    path = operation.path.removeprefix(PREFIX).format(**names)
    return await api.call(operation.method, path, BODIES.get(operation.name), by=by)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_each_role_may_do_what_is_declared(api, operation):
    for role in Role:
        answer = await call(api, operation, role.value)
        assert (answer.status == 403) == (not role.includes(operation.role)), role
        assert answer.status in {403, 200, 201, 204, 404, 409}


@pytest.mark.parametrize("scope", ["ingest", "heartbeat", "ops:read", "ops:write", "usage"])
async def test_each_scope_permits_what_is_declared_for_its_own_tenant(api, scope):
    key = await api.key("acme", scope)
    for operation in OPERATIONS:
        allowed = scope in {each.value for each in operation.scopes}
        answer = await call(api, operation, key)
        if operation.name == "createKey":
            assert answer.status == 403, "it has not the scope of the new key"
        else:
            assert (answer.status != 403) == allowed, operation.name
        if "tenant" in operation.variables:
            other = await call(api, operation, key, {**NAMES, "tenant": "globex"})
            assert other.status == 403, operation.name


async def test_a_key_of_a_suspended_tenant_permits_nothing(api):
    key = await api.key("acme", "ops:read")
    assert (await api.call("GET", "/me", by=key)).json["tenant"] == "acme"
    await api.call("PATCH", "/tenants/acme", {"status": "suspended"})
    await api.store._refresher.refresh()
    assert (await api.call("GET", "/me", by=key)).status == 403


async def test_tenants_are_created_read_changed_and_listed(api):
    created = await api.call("POST", "/tenants", {"id": "new", "name": "New", "attributes": {"region": "eu"}})
    assert created.status == 201
    assert (await api.call("GET", "/tenants/new")).json == created.json
    assert created.json["status"] == "active"
    changed = await api.call(
        "PATCH", "/tenants/new", {"status": "suspended", "name": "Old", "attributes": {}}, x_request_id="r"
    )
    assert changed.json == {**created.json, "status": "suspended", "name": "Old", "attributes": {}}
    assert [event.action for event in await api.log()] == ["tenant.create", "tenant.update", "tenant.suspend"]
    assert {event.request_id for event in (await api.log())[1:]} == {"r"}
    assert (await api.call("PATCH", "/tenants/new", {"status": "active"})).json["status"] == "active"
    found = await api.call("GET", "/tenants?status=active&plan=free")
    assert [each["id"] for each in found.json["items"]] == ["acme", "globex", "new"]
    assert found.json["next"] is None


async def test_a_change_is_made_as_a_whole_or_not_at_all(api):
    answer = await api.call("PATCH", "/tenants/acme", {"name": "Other", "plan": "missing"})
    assert answer.status == 409
    assert answer.json["errors"][0]["pointer"] == "#/plan"
    assert (await api.call("GET", "/tenants/acme")).json["name"] == "acme"
    assert await api.log() == []
    assert (await api.call("PATCH", "/tenants/acme", {})).status == 422


async def test_lists_have_pages_that_lead_to_the_end(api):
    for number in range(5):
        await api.call("POST", "/tenants", {"id": f"t{number}"})
    path, found = "/tenants?limit=3&status=active", []
    while path:
        answer = await api.call("GET", path)
        found += [each["id"] for each in answer.json["items"]]
        url = answer.json["next"]
        assert answer.headers.get("Link") == (f'<{url}>; rel="next"' if url else None)
        path = url.removeprefix(PREFIX) if url else None
    assert found == ["acme", "globex", "t0", "t1", "t2", "t3", "t4"]


async def test_the_life_of_a_key(api):
    created = await api.call("POST", "/tenants/acme/keys", {"scopes": ["ingest", "usage"], "expires_in": 3600})
    key = created.json
    assert created.status == 201
    assert key["key"].startswith(f"wpo_live_{key['id']}_")
    shown = await api.call("GET", f"/tenants/acme/keys/{key['id']}")
    assert shown.json == {name: value for name, value in key.items() if name != "key"}
    rotated = await api.call("POST", f"/tenants/acme/keys/{key['id']}/rotate", {"grace": 60.0})
    assert rotated.json["scopes"] == ["ingest", "usage"]
    assert (await api.call("POST", "/tenants/acme/keys", {})).status == 409, "two of this name are live"
    revoked = await api.call("POST", f"/tenants/acme/keys/{key['id']}/revoke")
    assert revoked.json["revoked"]
    live = await api.call("GET", "/tenants/acme/keys?state=live")
    assert [each["id"] for each in live.json["items"]] == [rotated.json["id"]]
    assert (await api.call("POST", f"/tenants/acme/keys/{key['id']}/rotate", {})).status == 409
    assert (await api.call("GET", f"/tenants/globex/keys/{key['id']}")).status == 404, "it is of another tenant"
    assert (await api.call("POST", f"/tenants/globex/keys/{key['id']}/revoke")).status == 404


async def test_a_tenant_manages_its_keys_but_gets_no_more_than_it_has(api):
    key = await api.key("acme", "ops:write", "ingest")
    created = await api.call("POST", "/tenants/acme/keys", {"scopes": ["ingest"]}, by=key)
    assert created.status == 201
    assert (await api.call("POST", "/tenants/acme/keys", {"scopes": ["usage"]}, by=key)).status == 403
    wider = (await api.call("POST", "/tenants/acme/keys", {"name": "wide", "scopes": ["usage"]})).json["id"]
    assert (await api.call("POST", f"/tenants/acme/keys/{wider}/rotate", {}, by=key)).status == 403
    assert (await api.call("POST", f"/tenants/acme/keys/{wider}/revoke", by=key)).status == 403
    assert (await api.call("PATCH", "/tenants/acme", {"name": "Acme"}, by=key)).status == 200
    assert (await api.call("PATCH", "/tenants/acme", {"plan": "free"}, by=key)).status == 403
    assert (await api.log())[0].actor == f"key:{key[9:25]}"


async def test_plans_are_set_and_deleted(api):
    assert (await api.call("PUT", "/plans/gold", {"tier": "pro", "limits": {"requests_per_second": 5}})).json == {
        "name": "gold",
        "tier": "pro",
        "limits": {"requests_per_second": 5},
        "retention_days": None,
    }
    changed = await api.call("PUT", "/plans/gold", {"tier": "enterprise", "retention_days": 30})
    assert changed.json["limits"] == {}
    assert (await api.call("GET", "/plans/gold")).json == changed.json
    assert "gold" in [each["name"] for each in (await api.call("GET", "/plans")).json["items"]]
    assert (await api.call("PUT", "/plans/gold", {"tier": "pro", "limits": {"wishes": 3}})).status == 422
    assert (await api.call("PUT", "/plans/gold", {"tier": "pro", "limits": {"items_per_second": 0}})).status == 422
    assert (await api.call("DELETE", "/plans/free")).status == 409, "tenants have it"
    deleted = await api.call("DELETE", "/plans/gold")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await api.call("GET", "/plans/gold")).status == 404


async def test_operators_get_tokens_and_lose_them(api):
    added = await api.call("POST", "/operators", {"name": "bob", "role": "viewer"})
    assert (await api.call("GET", "/me", by=added.json["token"])).json["name"] == "operator:bob"
    assert (await api.call("GET", "/operators/bob")).json["role"] == "viewer"
    assert (await api.call("PATCH", "/operators/bob", {"role": "operator"})).json["role"] == "operator"
    rotated = await api.call("POST", "/operators/bob/rotate-token")
    assert (await api.call("GET", "/me", by=added.json["token"])).status == 401
    assert (await api.call("GET", "/me", by=rotated.json["token"])).json["role"] == "operator"
    assert (await api.call("DELETE", "/operators/bob")).status == 204
    assert (await api.call("GET", "/me", by=rotated.json["token"])).status == 401
    listed = (await api.call("GET", "/operators")).json["items"]
    assert [each["name"] for each in listed] == ["the-admin", "the-operator", "the-viewer"]
    assert "token" not in listed[0]


async def test_an_admin_cannot_lock_itself_out(api):
    assert (await api.call("DELETE", "/operators/the-admin")).status == 409
    assert (await api.call("PATCH", "/operators/the-admin", {"role": "viewer"})).status == 409
    assert (await api.call("PATCH", "/operators/the-admin", {"role": "admin"})).status == 200


async def test_the_audit_log_is_listed_newest_first(api):
    for number in range(3):
        await api.call("POST", "/tenants", {"id": f"t{number}"}, by="operator")
    first = (await api.call("GET", "/audit-log?limit=2")).json
    second = (await api.call("GET", first["next"].removeprefix(PREFIX))).json
    assert [row["target"] for row in first["items"] + second["items"][:1]] == ["t2", "t1", "t0"]
    assert first["items"][0]["actor"] == "operator:the-operator"
    assert first["items"][0]["after"]["id"] == "t2"
    only = (await api.call("GET", "/audit-log?target=t1")).json
    assert [row["target"] for row in only["items"]] == ["t1"]


LICENSE = {"customer": "Acme", "tier": "pro", "expires": "2030-12-31"}


async def test_licences_are_set_read_revoked_restored_and_listed(api):
    created = await api.call("PUT", "/licenses/shop-1", {**LICENSE, "features": ["fleet"], "limits": {"sites": 5}})
    assert (created.status, created.json["features"], created.json["lease_days"]) == (200, ["fleet"], 30)
    assert (await api.call("GET", "/licenses/shop-1", by="viewer")).json == created.json
    revoked = await api.call("POST", "/licenses/shop-1/revoke", {"reason": "not paid"})
    assert revoked.json["revocation_reason"] == "not paid"
    assert (await api.call("POST", "/licenses/shop-1/revoke", {"reason": "again"})).status == 409
    assert (await api.call("POST", "/licenses/shop-1/restore")).json["revoked"] is None
    await api.call("PUT", "/licenses/shop-2", {**LICENSE, "customer": "Globex", "lease_days": None})
    listed = await api.call("GET", "/licenses?customer=Globex")
    assert [(each["id"], each["lease_days"]) for each in listed.json["items"]] == [("shop-2", None)]


@pytest.mark.parametrize(
    "changed",
    [
        {"expires": 5},
        {"expires": "2030-12-31T00:00:00"},
        {"expires": "2030-13-01"},
        {"not_before": True},
        {"customer": " "},
        {"tier": "gold"},
        {"lease_days": 0},
        {"lease_days": "30"},
        {"features": ["UPPER"]},
        {"limits": {"sites": -1}},
        {"domains": ["a b"]},
        {"domains": [f"{number}{'x' * 90}.example" for number in range(90)]},
        {"unknown": 1},
    ],
)
async def test_terms_that_are_not_valid_are_refused(api, changed):
    answer = await api.call("PUT", "/licenses/shop-1", LICENSE | changed)
    assert answer.status == 422


async def test_terms_that_leave_no_day_are_a_conflict(api):
    answer = await api.call("PUT", "/licenses/shop-1", {**LICENSE, "not_before": "2031-01-01"})
    assert answer.status == 409
    assert "not_before (2031-01-01) is after expires (2030-12-31)" in answer.json["detail"]


async def test_the_document_states_which_names_limits_have(api):
    document = json.loads(api.dispatcher._openapi())
    limits = document["components"]["schemas"]["LicenseSettings"]["properties"]["limits"]
    assert limits["additionalProperties"] is False
    assert limits["maxProperties"] == 32
