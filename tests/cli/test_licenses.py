"""Licences of a licence server: their whole life with commands."""

from datetime import date

import pytest

from otelwp_agent.licensing.signatures import private_pem, verify_license
from tests.licensing.issuer import ISSUER

TERMS = ("--customer", "Shop Ltd", "--tier", "pro", "--expires", "9999-12-31")


def test_life(command, tmp_path):
    status, out, _ = command("licenses", "set", "shop-1", *TERMS, "--feature", "fleet")
    assert (status, out) == (0, "licence shop-1 of Shop Ltd, tier pro, until 9999-12-31\n")
    _, out, _ = command("licenses", "list")
    assert out.splitlines()[1].split() == ["shop-1", "Shop", "Ltd", "pro", "9999-12-31", "live"]
    assert command("licenses", "list", "--customer", "Other", "--json") == []
    _, out, _ = command("licenses", "show", "shop-1")
    assert ["features", "fleet"] in [line.split() for line in out.splitlines()]
    key = tmp_path / "signing.pem"
    key.write_bytes(private_pem(ISSUER.private))
    _, out, _ = command("licenses", "sign", "shop-1", "--signing-key", str(key))
    terms = verify_license(out, ISSUER.keys)
    assert (terms.jti, terms.tier, terms.expires, terms.revoked) == ("shop-1", "pro", date(9999, 12, 31), None)
    assert command("licenses", "revoke", "shop-1", "--reason", "not paid")[1] == "revoked licence shop-1 of Shop Ltd\n"
    signed = command("licenses", "sign", "shop-1", "--signing-key", str(key), "--json")
    assert verify_license(signed["license"], ISSUER.keys).revoked == "not paid"
    assert "revoked: not paid" in command("licenses", "list")[1]
    assert command("licenses", "restore", "shop-1", "--json")["revoked"] is None
    changed = command("licenses", "set", "shop-1", *TERMS, "--lease-days", "0", "--json")
    assert (changed["features"], changed["lease_days"]) == ([], None)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("show", "none"), "there is no licence 'none'"),
        (("revoke", "none", "--reason", "x"), "there is no licence 'none'"),
        (("restore", "shop-1"), "is not revoked"),
        (("revoke", "shop-1", "--reason", " "), "is not a valid reason"),
        (("set", "Shop 1", *TERMS), "is not a valid id of a licence"),
        (("set", "shop-1", *TERMS, "--domain", "a b"), "domains.0"),
        (("set", "shop-1", *TERMS, "--not-before", "9999-12-31", "--expires", "9999-12-30"), "is after expires"),
    ],
)
def test_what_is_refused(command, arguments, wanted):
    command("licenses", "set", "shop-1", *TERMS)
    status, _, err = command("licenses", *arguments)
    assert (status, wanted in err) == (1, True)
