"""Licences are signed and verified; everything that is not exactly a licence of a known key is refused."""

import base64
import json
from datetime import date

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from otelwp_agent.licensing.signatures import (
    MAX_LICENSE,
    LicenseError,
    generate_key,
    private_pem,
    read_private_key,
    sign_license,
    verify_license,
)
from tests.licensing.issuer import ISSUER, Issuer

CLAIMS = ISSUER.terms().to_json()


def signed(claims, *, key=None, **headers):
    kid = next(iter(ISSUER.keys))
    return jwt.encode(claims, key or ISSUER.private, "EdDSA", headers={"kid": kid, "typ": "license+jwt"} | headers)


def unsigned(claims, **header):
    parts = [{"typ": "license+jwt", "kid": next(iter(ISSUER.keys))} | header, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts) + "."


def refused(text):
    with pytest.raises(LicenseError) as caught:
        verify_license(text, ISSUER.keys)
    return caught.value.reason, str(caught.value)


def test_a_signed_licence_has_its_terms():
    terms = ISSUER.terms(features=["fleet"], limits={"sites": 5}, domains=["*.shop.example"], lease=5, nonce="n")
    assert verify_license(sign_license(terms, ISSUER.private) + "\n", ISSUER.keys) == terms


def test_unknown_claims_are_ignored_so_that_older_agents_accept_newer_licences():
    assert verify_license(signed(CLAIMS | {"later": [1]}), ISSUER.keys) == ISSUER.terms()


def test_algorithms_other_than_eddsa_are_refused():
    key = rsa.generate_private_key(65537, 2048)
    assert refused(unsigned(CLAIMS, alg="none"))[0] == "algorithm"
    assert refused(unsigned(CLAIMS))[0] == "algorithm"
    kid = {"kid": next(iter(ISSUER.keys)), "typ": "license+jwt"}
    assert refused(jwt.encode(CLAIMS, key, "RS256", headers=kid))[0] == "algorithm"
    hmac_with_the_public_key = jwt.encode(CLAIMS, ISSUER.public.encode(), "HS256", headers=kid)
    assert refused(hmac_with_the_public_key)[0] == "algorithm"


def test_another_key_is_refused_even_if_it_states_the_id_of_a_known_one():
    other = Issuer()
    reason, message = refused(other.issue())
    assert reason == "unknown_key"
    assert "public_keys" in message
    assert refused(signed(CLAIMS, key=other.private))[0] == "signature"
    assert refused(unsigned(CLAIMS, alg="EdDSA", kid=5))[0] == "unknown_key"
    assert refused(unsigned(CLAIMS, alg="EdDSA", kid=None))[0] == "unknown_key"
    assert refused(signed(CLAIMS, kid="é"))[0] == "unknown_key"


def test_every_changed_character_is_noticed():
    text = ISSUER.issue()
    for at in range(0, len(text), 7):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(LicenseError):
            verify_license(changed, ISSUER.keys)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", ISSUER.issue()[:-3], ISSUER.issue()[:40], ISSUER.issue() * 2])
def test_truncated_and_foreign_texts_are_refused(text):
    assert refused(text)[0] in {"malformed", "signature"}


def test_a_giant_text_is_refused_without_being_parsed():
    reason, message = refused("a." * 10_000_000)
    assert reason == "malformed"
    assert len(message) < 200


def test_documents_for_other_products_are_refused():
    assert refused(signed(CLAIMS | {"aud": "other-agent"}))[0] == "product"
    assert refused(signed(CLAIMS | {"aud": ["otelwp-agent"]}))[0] == "product"
    assert refused(signed({name: value for name, value in CLAIMS.items() if name != "aud"}))[0] == "product"
    assert refused(signed(CLAIMS, typ="JWT"))[0] == "product"


@pytest.mark.parametrize(
    "claims",
    [
        {"tier": "gold"},
        {"tier": 1},
        {"iat": "now"},
        {"iat": True},
        {"iat": 1.5},
        {"iat": 10**20},
        {"iat": -1},
        {"expires": 5},
        {"expires": "2027-13-01"},
        {"expires": "31.12.2027"},
        {"expires": "2027-12-31T00:00:00Z"},
        {"expires": None},
        {"not_before": []},
        {"lease": "1"},
        {"jti": ""},
        {"jti": "../x"},
        {"jti": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"features": "all"},
        {"features": ["x"] * 33},
        {"features": [["x"]]},
        {"limits": []},
        {"limits": {"sites": "many"}},
        {"limits": {"sites": -1}},
        {"domains": [" "]},
        {"revoked": True},
        {"nonce": "x" * 65},
    ],
)
def test_claims_of_wrong_types_are_refused_and_named(claims):
    reason, message = refused(signed(CLAIMS | claims))
    assert reason == "claims"
    assert next(iter(claims)) in message


def test_a_licence_that_would_not_fit_into_a_header_is_not_signed():
    with pytest.raises(LicenseError, match=f"the most is {MAX_LICENSE}"):
        ISSUER.issue(domains=[f"{number}{'x' * 90}.example" for number in range(90)])


def test_private_keys_are_read_as_written():
    key = generate_key()
    assert read_private_key(private_pem(key)).private_bytes_raw() == key.private_bytes_raw()


def test_other_private_keys_are_refused():
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = rsa.generate_private_key(65537, 2048).private_bytes(*formats, serialization.NoEncryption())
    locked = generate_key().private_bytes(*formats, serialization.BestAvailableEncryption(b"password"))
    for pem in (b"", b"x", other, locked):
        with pytest.raises(ValueError, match="license keygen"):
            read_private_key(pem)


def test_the_last_day_of_a_licence_is_a_claim_without_a_time():
    assert CLAIMS["expires"] == "2027-12-31"
    assert ISSUER.terms(expires=date(2027, 2, 28)).to_json()["expires"] == "2027-02-28"
