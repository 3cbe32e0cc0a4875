from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from otelwp_agent.codecs.ed25519_jws import ALGORITHM, is_signed_by
from otelwp_agent.licensing.public_keys import encode_base64url


def public(key):
    return encode_base64url(key.public_key().public_bytes_raw())


def test_only_the_key_that_has_signed_a_text_verifies_it():
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    text = jwt.encode({"a": 1}, key, ALGORITHM)
    assert is_signed_by(text, public(key))
    assert not is_signed_by(text, public(other))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_text_is_not_signed(part):
    key = Ed25519PrivateKey.generate()
    parts = jwt.encode({"a": 1}, key, ALGORITHM).split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    assert not is_signed_by(".".join(parts), public(key))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_other_algorithms_are_not_accepted(algorithm):
    key = Ed25519PrivateKey.generate()
    text = jwt.encode({"a": 1}, "" if algorithm == "none" else "s" * 32, algorithm)
    assert not is_signed_by(text, public(key))
