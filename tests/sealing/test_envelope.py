import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.envelope import (
    LABEL,
    MAX_HEADER_BYTES,
    SealedHeader,
    parse,
    seal,
    unseal,
)
from otelwp_agent.sealing.envelope_pb2 import EnvelopeHeader
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite

NOW = 1_700_000_000.0
BODY = b"resource spans of a shop" * 20
PRIVATE = {suite: suite.generate() for suite in SealingSuite}
RECIPIENTS = {
    suite: Recipient(f"key-{suite.value}", suite, suite.public_bytes(PRIVATE[suite])) for suite in SealingSuite
}
RING = KeyRing(OpeningKey(f"key-{suite.value}", suite, PRIVATE[suite]) for suite in SealingSuite)
HEADER = SealedHeader(
    "acme",
    int(NOW * 1000),
    agent="web-1",
    message_id=bytes(range(16)),
    signal=Signal.TRACES,
    encodings=("zstd",),
    items=100,
    plain_size=27_000,
)
X25519 = RECIPIENTS[SealingSuite.X25519]
SEALED = seal(X25519, HEADER, BODY)


def reason(data, ring=RING, now=NOW, **settings):
    with pytest.raises(SealedError) as caught:
        unseal(parse(data), ring, now, **settings)
    return caught.value.reason


def altered_header(**fields):
    envelope = parse(SEALED)
    message = EnvelopeHeader.FromString(envelope.header_bytes)
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(message, name)[:]
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    data = message.SerializeToString()
    return b"OWS1" + len(data).to_bytes(2, "big") + data + bytes(envelope.sealed)


@pytest.mark.parametrize("suite", SealingSuite)
def test_what_is_sealed_is_opened(suite):
    data = seal(RECIPIENTS[suite], HEADER, BODY)
    envelope = parse(data)
    assert envelope.header == dataclasses.replace(HEADER, key_id=f"key-{suite.value}", suite=suite.value)
    assert envelope.content_bytes == len(BODY)
    assert unseal(envelope, RING, NOW) == BODY
    assert BODY[:16] not in data
    assert b"acme" in data


def test_a_message_gets_a_random_id():
    ids = {parse(seal(X25519, dataclasses.replace(HEADER, message_id=b""), BODY)).header.message_id for _ in range(3)}
    assert len(ids) == 3
    assert {len(one) for one in ids} == {16}


def test_two_envelopes_of_one_body_have_nothing_in_common():
    first, second = parse(SEALED).sealed, parse(seal(X25519, HEADER, BODY)).sealed
    assert bytes(first[:32]) != bytes(second[:32])
    assert bytes(first[32:64]) != bytes(second[32:64])


@pytest.mark.parametrize("suite", SealingSuite)
def test_every_flipped_bit_is_refused(suite):
    small = seal(RECIPIENTS[suite], HEADER, b"0123456789")
    step = 1 if suite is SealingSuite.X25519 else 7  # the hybrid envelope has 1200 bytes: every seventh bit of them
    for bit in range(0, 8 * len(small), step):
        changed = bytearray(small)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason(bytes(changed)) in {"malformed", "too_large", "unknown_key", "wrong_suite", "altered"}, bit


@given(st.integers(0, len(SEALED) - 1))
def test_every_truncation_is_refused(length):
    assert reason(SEALED[:length]) in {"malformed", "altered"}


def test_bytes_after_the_end_are_refused():
    assert reason(SEALED + b"x") == "altered"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    assert reason(data) == "malformed"
    assert reason(b"OWS1" + data) in {"malformed", "too_large", "unknown_key"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"customer": "other"}, "altered"),
        ({"time_unix_ms": int(NOW * 1000) + 1}, "altered"),
        ({"message_id": bytes(16)}, "altered"),
        ({"items": 99}, "altered"),
        ({"plain_size": 1}, "altered"),
        ({"encodings": []}, "altered"),
        ({"signal": "logs"}, "altered"),
        ({"content_type": "text/plain"}, "altered"),
        ({"key_id": "key-9"}, "unknown_key"),
        ({"key_id": "key-2"}, "wrong_suite"),
        ({"suite": 2}, "wrong_suite"),
        ({"suite": 77}, "wrong_suite"),
        ({"suite": 0}, "wrong_suite"),
        ({"version": 2}, "malformed"),
        ({"version": 0}, "malformed"),
        ({"purpose": "journal"}, "malformed"),
        ({"signal": "profiles"}, "malformed"),
        ({"message_id": b"short"}, "malformed"),
        ({"key_id": ""}, "malformed"),
        ({"customer": "a" * 129}, "malformed"),
        ({"agent": "a\nb"}, "malformed"),
        ({"encodings": ["gzip", "zstd", "gzip"]}, "malformed"),
        ({"encodings": ["sealed"]}, "malformed"),
        ({"encodings": [""]}, "malformed"),
        ({"items": 2**60}, "malformed"),
    ],
)
def test_a_changed_header_is_refused(fields, expected):
    assert reason(altered_header(**fields)) == expected


def test_a_header_in_another_serialization_is_refused():
    envelope = parse(SEALED)
    data = envelope.header_bytes + b"\x08\x01"  # the same version once more: equal when parsed
    assert parse(b"OWS1" + len(data).to_bytes(2, "big") + data + bytes(envelope.sealed)).header == envelope.header
    assert reason(b"OWS1" + len(data).to_bytes(2, "big") + data + bytes(envelope.sealed)) == "altered"


def test_a_large_header_is_refused_before_it_is_parsed():
    for length in (MAX_HEADER_BYTES + 1, 0xFFFF):
        data = b"OWS1" + length.to_bytes(2, "big") + b"\x0a" * 70_000
        started = time.process_time()
        assert reason(data) == "too_large"
        assert time.process_time() - started < 0.1


def test_a_key_opens_within_its_time_only():
    ring = KeyRing([OpeningKey("key-1", SealingSuite.X25519, PRIVATE[SealingSuite.X25519], NOW, NOW + 10)])
    assert unseal(parse(SEALED), ring, NOW) == BODY
    assert unseal(parse(SEALED), ring, NOW + 9.9) == BODY
    assert reason(SEALED, ring, NOW + 10) == "unknown_key"
    assert reason(SEALED, ring, NOW - 301) == "unknown_key"
    assert reason(SEALED, KeyRing([])) == "unknown_key"


def test_another_key_with_the_same_id_does_not_open():
    ring = KeyRing([OpeningKey("key-1", SealingSuite.X25519, SealingSuite.X25519.generate())])
    assert reason(SEALED, ring) == "altered"


def test_the_purpose_is_bound():
    data = seal(X25519, dataclasses.replace(HEADER, purpose="journal"), BODY)
    assert reason(data) == "malformed"
    assert unseal(parse(data), RING, NOW, "journal") == BODY


@pytest.mark.parametrize(
    "fields",
    [
        {"customer": "a\0"},
        {"agent": "a" * 129},
        {"items": -1},
        {"time": 2**60},
        {"message_id": b"short"},
        {"purpose": ""},
        {"encodings": ("zstd", "sealed")},
    ],
)
def test_a_header_that_nobody_could_read_is_not_sealed(fields):
    with pytest.raises(ValueError, match="must"):
        seal(X25519, dataclasses.replace(HEADER, **fields), BODY)


def test_wide_characters_beyond_the_header_are_not_sealed():
    wide = "\N{GRINNING FACE}" * 128
    with pytest.raises(ValueError, match="the header has"):
        seal(X25519, dataclasses.replace(HEADER, customer=wide, agent=wide, purpose=wide, content_type=wide), BODY)


def test_the_private_key_is_not_shown():
    key = OpeningKey("key-1", SealingSuite.X25519, PRIVATE[SealingSuite.X25519])
    assert PRIVATE[SealingSuite.X25519].hex() not in repr(key)
    assert "private" not in repr(key)
    assert repr(PRIVATE[SealingSuite.X25519]) not in repr(key)


def test_a_second_implementation_of_hpke_opens_and_seals():
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    envelope = parse(SEALED)
    info = LABEL + envelope.header_bytes
    private = KEMKey.from_pyca_cryptography_key(RING.find("key-1", NOW).loaded)
    context = suite.create_recipient_context(bytes(envelope.sealed[:32]), private, info=info)
    assert context.open(bytes(envelope.sealed[32:])) == BODY

    encapsulated, sender = suite.create_sender_context(KEMKey.from_pyca_cryptography_key(X25519.loaded), info=info)
    foreign = SEALED[: -len(envelope.sealed)] + encapsulated + sender.seal(b"from elsewhere")
    assert unseal(parse(foreign), RING, NOW) == b"from elsewhere"
