import pytest

from otelwp_agent.admin.identity import Identification, Principal
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, operators, tenants
from otelwp_agent.control.operations.operators import Role


def test_roles_include_lower_ones_and_scopes_are_alternatives():
    operator = Principal("operator:a", Role.OPERATOR)
    assert operator.permits(Role.VIEWER, ())
    assert not operator.permits(Role.ADMIN, (Scope.OPS_WRITE,))
    key = Principal("key:a", None, "acme", frozenset({"ops:read"}))
    assert key.permits(Role.ADMIN, (Scope.USAGE, Scope.OPS_READ))
    assert not key.permits(Role.VIEWER, ())


async def test_operators_and_keys_are_identified(api):
    identify = Identification(api.store).identify
    token = api.tokens["viewer"]
    assert await identify({"authorization": f"bearer  {token}"}) == Principal("operator:the-viewer", Role.VIEWER)
    key = await api.key("acme", "ops:read", "usage")
    found = await identify({"x-api-key": key})
    assert (found.tenant, found.role, found.scopes) == ("acme", None, frozenset({"ops:read", "usage"}))
    assert found.name == f"key:{key[9:25]}"
    assert api.store.used.take(0.0), "its use is noted"
    assert await identify({"authorization": f"Basic {token}"}) is None
    assert await identify({}) is None
    both = {"authorization": f"Bearer {token}", "x-api-key": "wrong"}
    assert (await identify(both)).name == "operator:the-viewer"
    assert await identify({"authorization": "Bearer wrong", "x-api-key": key}) is None


async def test_a_removed_operator_is_refused_at_once(api):
    def remove(connection):
        operators.remove_operator(connection, Actor("test"), "the-viewer")

    await api.store.store.write(remove)
    assert await Identification(api.store).identify({"authorization": f"Bearer {api.tokens['viewer']}"}) is None


@pytest.mark.parametrize("how", ["revoked", "expired", "suspended"])
async def test_keys_that_are_over(api, how):
    key = await api.key("acme", "ops:read")
    if how == "expired":
        directory = api.store.directory
        entry = directory.current.key(key[9:25])
        assert entry.expires_at == float("inf")
        later = Identification(api.store, now=lambda: float("inf"))
        assert await later.identify({"x-api-key": key}) is None
        return

    def change(connection):
        if how == "revoked":
            keys.revoke_key(connection, Actor("test"), key[9:25])
        else:
            tenants.suspend_tenant(connection, Actor("test"), "acme")

    await api.store.store.write(change)
    await api.store._refresher.refresh()
    found = await Identification(api.store).identify({"x-api-key": key})
    assert found is None if how == "revoked" else found.scopes == frozenset()
