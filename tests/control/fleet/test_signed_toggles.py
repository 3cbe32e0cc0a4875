from datetime import timedelta

import pytest

from otelwp_agent.codecs.compact_jws import read_jws
from otelwp_agent.codecs.ed25519_jws import is_signed_by
from otelwp_agent.control.fleet.signed_toggles import TYPE, ToggleSigner
from otelwp_agent.control.fleet.toggles import Toggle
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text
from tests.kit.fleet import NOW


def test_the_signature_ends_with_the_first_toggle():
    key, signer = generate_key(), ToggleSigner(3600.0)
    assert signer.use(private_pem(key).decode()) == {"key": signer.key_id}
    ends = [None, NOW + timedelta(minutes=30), NOW + timedelta(days=1)]
    toggles = [
        Toggle("t", "id-1", "rate_limit", value=True, reason="", expires_at=end, updated_by="a", updated=NOW)
        for end in ends
    ]
    text = signer.sign("id-1", {"rate_limit": True}, toggles, NOW.timestamp())
    found = read_jws(text, max_length=4096)
    assert found.header == {"alg": "EdDSA", "kid": signer.key_id, "typ": TYPE}
    assert found.claims["exp"] == int(ends[1].timestamp())
    assert (found.claims["sub"], found.claims["toggles"]) == ("id-1", {"rate_limit": True})
    assert is_signed_by(text, public_text(key))
    assert not is_signed_by(text, public_text(generate_key()))
    last = read_jws(signer.sign("id-1", {}, [], NOW.timestamp()), max_length=4096)
    assert last.claims["exp"] == int(NOW.timestamp()) + 3600


def test_a_file_without_a_key_is_refused():
    with pytest.raises(ValueError, match="Ed25519"):
        ToggleSigner(1.0).use("no key")
