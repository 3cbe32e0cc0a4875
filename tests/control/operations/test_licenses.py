"""Licences in the control store."""

from dataclasses import replace
from datetime import date

import pytest

from otelwp_agent.control import audit
from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.operations import licenses
from otelwp_agent.control.snapshot import version
from otelwp_agent.licensing.terms import LicenseTerms
from tests.licensing.issuer import START

TERMS = LicenseTerms("Shop Ltd", "pro", date(2027, 12, 31), date(2027, 1, 1), ("fleet",), {"sites": 5}, ("a.example",))


@pytest.fixture
def change(store, actor):
    def change(operation, *arguments):
        with store.write() as connection:
            return operation(connection, actor, *arguments)

    return change


def test_a_licence_is_stored_as_set(store, change):
    created = change(licenses.set_license, "shop-1", TERMS)
    with store.read() as connection:
        found = licenses.get_license(connection, "shop-1")
        assert found == created
        assert found.terms == TERMS
        assert licenses.find_license(connection, "none") is None
        with pytest.raises(UnknownNameError, match="licenses list"):
            licenses.get_license(connection, "none")


def test_terms_are_replaced_but_a_revocation_stays(change):
    change(licenses.set_license, "shop-1", TERMS)
    change(licenses.revoke_license, "shop-1", "not paid")
    found = change(licenses.set_license, "shop-1", replace(TERMS, tier="enterprise", limits={}))
    assert (found.terms.tier, found.terms.limits, found.revocation_reason) == ("enterprise", {}, "not paid")
    assert found.signable(START).revoked == "not paid"
    found = change(licenses.restore_license, "shop-1")
    assert found.signable(START, "n").revoked is None


def test_a_licence_is_revoked_and_restored_once(change):
    change(licenses.set_license, "shop-1", TERMS)
    with pytest.raises(ConflictError, match="is not revoked"):
        change(licenses.restore_license, "shop-1")
    change(licenses.revoke_license, "shop-1", "not paid")
    with pytest.raises(ConflictError, match="revoked already: not paid"):
        change(licenses.revoke_license, "shop-1", "again")
    with pytest.raises(InvalidValueError, match="reason"):
        change(licenses.revoke_license, "shop-1", "\n")


def test_every_change_is_counted_and_audited(store, change):
    with store.read() as connection:
        before = version(connection)
    change(licenses.set_license, "shop-1", TERMS)
    change(licenses.revoke_license, "shop-1", "not paid")
    change(licenses.restore_license, "shop-1")
    with store.read() as connection:
        assert version(connection) == before + 3
        logged = [each.event for each in audit.list_events(connection, target="shop-1")]
        assert {each.action for each in logged} == {"license.set", "license.revoke", "license.restore"}
        assert not audit.verify(connection).problems


def test_lists_are_ordered_and_paged(store, change):
    for id_, customer in (("b", "B"), ("a", "A"), ("c", "A")):
        change(licenses.set_license, id_, replace(TERMS, customer=customer))
    with store.read() as connection:
        assert [each.id for each in licenses.list_licenses(connection, limit=2)] == ["a", "b"]
        assert [each.id for each in licenses.list_licenses(connection, after="b")] == ["c"]
        assert [each.id for each in licenses.list_licenses(connection, customer="A")] == ["a", "c"]


@pytest.mark.parametrize(
    ("id_", "changed", "why"),
    [
        ("Shop", {}, "id of a licence"),
        ("shop-1", {"customer": ""}, "name of a customer"),
        ("shop-1", {"tier": "gold"}, "tier"),
        ("shop-1", {"lease_days": 0}, "lease_days"),
        ("shop-1", {"domains": tuple(f"{number}{'x' * 90}.example" for number in range(90))}, "fewer domains"),
    ],
)
def test_what_cannot_be_signed_is_not_stored(store, change, id_, changed, why):
    with pytest.raises(InvalidValueError, match=why):
        change(licenses.set_license, id_, replace(TERMS, **changed))
    with store.read() as connection:
        assert licenses.list_licenses(connection) == []
