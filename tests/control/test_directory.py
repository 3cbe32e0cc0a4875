import math

import pytest

from otelwp_agent.control.api_keys import Hasher, Scope
from otelwp_agent.control.directory import (
    NO_PLAN,
    Directory,
    PlanEntry,
    TenantDirectory,
    TenantEntry,
    pack_key,
    scope_bits,
)

ACME = TenantEntry("acme", "gold", active=True)
GOLD = PlanEntry("pro", {"items_per_second": 5.0}, 7)


def directory(**keys):
    return Directory(1, {"gold": GOLD}, [ACME], {"acme": 0}, keys)


@pytest.mark.parametrize("scopes", [[], ["ingest"], [scope.value for scope in Scope], ["usage", "ops:write"]])
@pytest.mark.parametrize("expires_at", [None, 1_800_000_000.25])
def test_a_packed_key_is_read_as_it_was(scopes, expires_at):
    found = directory(id=pack_key(b"h" * 32, expires_at, 0, scope_bits(scopes))).key("id")
    assert found == (b"h" * 32, math.inf if expires_at is None else expires_at, ACME, frozenset(scopes))


def test_an_unknown_scope_permits_nothing():
    assert scope_bits(["everything"]) == 0


def test_unknown_names():
    found = directory()
    assert (found.key("id"), found.tenant("other"), found.plan("other")) == (None, None, NO_PLAN)
    assert (found.tenant("acme"), found.plan("gold")) == (ACME, GOLD)


def test_the_version_changes_with_each_directory():
    tenants = TenantDirectory(Hasher(b"p" * 32))
    assert tenants.current.key("id") is None
    before = tenants.version
    new = directory()
    tenants.replace(new)
    assert (tenants.current is new, tenants.version) == (True, before + 1)
