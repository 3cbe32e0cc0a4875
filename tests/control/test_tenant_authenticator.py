import pytest

from otelwp_agent.control.directory import PlanEntry, TenantEntry
from otelwp_agent.control.tenant_authenticator import TenantAuthenticator
from otelwp_agent.errors import ForbiddenError, UnauthenticatedError
from otelwp_agent.transport.authentication import Client
from tests.kit.control_access import Access
from tests.kit.gates import Keys, Names, gate

PLANS = {"gold": PlanEntry("pro", {"items_per_second": 5.0}, None), "iron": PlanEntry("free", {}, None)}
SHOP = Client("shop", "k1", frozenset({"ingest"}), {"subject": "s"}, 1_800_000_000.0)


@pytest.fixture
def access():
    access = Access()
    access.use(PLANS, TenantEntry("shop", "gold", active=True), TenantEntry("late", "gold", active=False))
    return access


@pytest.fixture
def keys():
    return Keys(a=SHOP, b=Client("other", "k2"), c=Client("", "k3"), d=Client("late", "k4"))


def ask(authenticator, key):
    return authenticator.authenticate({"x-api-key": key}, "10.0.0.1", None)


def test_a_client_gets_the_limits_of_its_plan_and_stays_the_same_otherwise(access, keys):
    found = ask(TenantAuthenticator(keys, access), "a")
    assert found.limits == {"items_per_second": 5.0}
    for name in ("tenant", "credential", "scopes", "attributes", "expires_at"):
        assert getattr(found, name) == getattr(SHOP, name)
    assert keys.asked == [("10.0.0.1", None)]


@pytest.mark.parametrize("key", ["b", "c"])
def test_clients_of_unknown_tenants_and_without_a_tenant_are_accepted(access, keys, key):
    assert ask(TenantAuthenticator(keys, access), key) is keys.clients[key]


def test_a_suspended_tenant_and_a_wrong_credential_are_refused(access, keys):
    with pytest.raises(ForbiddenError, match="this tenant is suspended"):
        ask(TenantAuthenticator(keys, access), "d")
    with pytest.raises(UnauthenticatedError):
        ask(TenantAuthenticator(keys, access), "?")


def test_a_gate_asks_again_after_a_change_of_the_store_or_of_the_authenticator(access, keys):
    ours = gate(TenantAuthenticator(keys, access))

    def enter():
        return ours.enter_call({"x-api-key": "a"}, "10.0.0.1", lambda: None, "Export").client

    first = enter()
    assert enter() is first
    access.use(PLANS, TenantEntry("shop", "iron", active=True))
    assert enter().limits == {}
    keys.version += 1
    keys.clients.clear()
    with pytest.raises(UnauthenticatedError):
        enter()


def test_it_is_asked_as_the_other_authenticator_is(access):
    assert TenantAuthenticator(Keys(), access).secret_headers == {"x-api-key"}
    assert TenantAuthenticator(Keys(), access).by_headers
    assert not TenantAuthenticator(Names(), access).by_headers
