"""The terms that an issuer sets become the document that is signed, or are refused with the name of the value."""

from dataclasses import replace
from datetime import date

import pytest

from otelwp_agent.licensing.signatures import sign_license, signed_length, verify_license
from otelwp_agent.licensing.terms import LicenseTerms
from tests.licensing.issuer import DAY, ISSUER, START

TERMS = LicenseTerms("Shop Ltd", "pro", date(2027, 12, 31))


def test_the_document_has_the_terms_and_a_lease_from_now():
    terms = replace(TERMS, features=("fleet",), limits={"sites": 5}, domains=("shop.example",))
    found = terms.signable("shop-1", START + 0.9, nonce="n")
    assert found == ISSUER.terms(
        features=["fleet"], limits={"sites": 5}, domains=["shop.example"], lease=int(START + 30 * DAY), nonce="n"
    )
    assert replace(TERMS, lease_days=None).signable("shop-1", START).lease is None
    assert TERMS.signable("shop-1", START, revoked="not paid").revoked == "not paid"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"customer": ""}, "customer"),
        ({"customer": "a\nb"}, "customer"),
        ({"tier": "gold"}, "tier"),
        ({"not_before": date(2028, 1, 1)}, "not_before"),
        ({"features": ("UPPER",)}, "features.0"),
        ({"limits": {"sites": -1.0}}, "limits.sites"),
        ({"limits": {"sites": float("nan")}}, "limits.sites"),
        ({"domains": ("a b",)}, "domains.0"),
        ({"domains": tuple(f"{number}{'x' * 90}.example" for number in range(90))}, "fewer domains"),
        ({"domains": ("a",) * 101}, "domains"),
        ({"lease_days": 0}, "lease_days"),
        ({"lease_days": 367}, "lease_days"),
    ],
)
def test_values_that_cannot_be_signed_are_named(changed, named):
    with pytest.raises(ValueError, match=named):
        replace(TERMS, **changed).check("shop-1", START)
    TERMS.check("shop-1", START)
    with pytest.raises(ValueError, match="id: "):
        TERMS.check("../x", START)


def test_terms_that_pass_can_be_signed():
    for count in range(10, 101, 15):
        terms = replace(TERMS, domains=tuple(f"{number}{'x' * 60}.shop.example" for number in range(count)))
        document = terms.signable("shop-1", START, nonce="n" * 64)
        try:
            terms.check("shop-1", START)
        except ValueError:
            continue
        text = sign_license(document, ISSUER.private)
        assert len(text) <= signed_length(document)
        assert verify_license(text, ISSUER.keys) == document
