"""The test vectors in docs/topics, which another implementation is checked with."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyPair

from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.sealing.content import decode
from otelwp_agent.sealing.envelope import LABEL, MAGIC, parse, unseal
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.key_set import verify_key_set
from otelwp_agent.sealing.suites import SealingSuite

VECTORS = json.loads((Path(__file__).parents[2] / "docs/topics/sealed-envelope-vectors.json").read_text())
SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
ENVELOPES = {vector["name"]: vector for vector in VECTORS["envelopes"]}
each = pytest.mark.parametrize("vector", ENVELOPES.values(), ids=ENVELOPES)
each_of_suite_1 = pytest.mark.parametrize("vector", [ENVELOPES["plain"], ENVELOPES["zstd"]], ids=["plain", "zstd"])


def raw(vector, name):
    return bytes.fromhex(vector[name])


def key(private):
    return X25519PrivateKey.from_private_bytes(private)


@each
def test_the_agent_opens_the_vectors(vector):
    envelope = parse(raw(vector, "envelope"))
    header = vector["header"]
    suite = SealingSuite(vector["suite"])
    private = raw(vector, "recipient_private_key")
    assert suite.public_bytes(private) == raw(vector, "recipient_public_key")
    content = unseal(envelope, KeyRing([OpeningKey(header["key_id"], suite, private)]), 0)
    assert content == raw(vector, "content")
    assert len(decode(envelope.header, content, 2**20)) == header["plain_size"]
    found = envelope.header
    assert {
        "version": 1,
        "suite": found.suite,
        "key_id": found.key_id,
        "customer": found.customer,
        "agent": found.agent,
        "time_unix_ms": found.time,
        "message_id": found.message_id.hex(),
        "purpose": found.purpose,
        "content_type": found.content_type,
        "signal": found.signal.value,
        "encodings": list(found.encodings),
        "items": found.items,
        "plain_size": found.plain_size,
    } == header
    assert envelope.header_bytes == raw(vector, "header_bytes")
    assert raw(vector, "info") == LABEL + envelope.header_bytes
    assert VECTORS["label"] == LABEL.decode()


@each_of_suite_1
def test_another_implementation_opens_the_vectors(vector):
    envelope, header = raw(vector, "envelope"), raw(vector, "header_bytes")
    sealed = envelope[6 + len(header) :]
    recipient = KEMKey.from_pyca_cryptography_key(key(raw(vector, "recipient_private_key")))
    context = SUITE.create_recipient_context(sealed[:32], recipient, info=raw(vector, "info"))
    assert context.open(sealed[32:]) == raw(vector, "content")


@each_of_suite_1
def test_another_implementation_makes_the_vectors(vector):
    header = raw(vector, "header_bytes")
    ephemeral = key(raw(vector, "ephemeral_private_key"))
    pair = KEMKeyPair(
        KEMKey.from_pyca_cryptography_key(ephemeral), KEMKey.from_pyca_cryptography_key(ephemeral.public_key())
    )
    public = KEMKey.from_pyca_cryptography_key(key(raw(vector, "recipient_private_key")).public_key())
    encapsulated, context = SUITE.create_sender_context(public, info=raw(vector, "info"), eks=pair)
    sealed = encapsulated + context.seal(raw(vector, "content"))
    assert MAGIC + len(header).to_bytes(2, "big") + header + sealed == raw(vector, "envelope")


def test_the_key_set_is_verified():
    vector = VECTORS["key_set"]
    found = verify_key_set(vector["text"], load_keys([vector["signer_public_key"]]))
    assert (found.version, [one.key_id for one in found.recipients]) == (vector["version"], vector["key_ids"])
    assert found.recipients[0].public == raw(ENVELOPES["plain"], "recipient_public_key")
