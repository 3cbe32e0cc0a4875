import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.sealing.key_set import MAX_KEY_SET, TYPE, KeySetError, SealingKeySet, sign_key_set, verify_key_set
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite

NOW = 1_700_000_000
DAY = 86_400
SIGNER = generate_key()
SIGNERS = {key_id(public_text(SIGNER)): public_text(SIGNER)}
HEADER = {"kid": key_id(public_text(SIGNER)), "typ": TYPE}


def recipient(name, not_before=NOW, not_after=None, suite=SealingSuite.X25519):
    return Recipient(name, suite, suite.public_bytes(suite.generate()), not_before, not_after)


def key_set(*recipients, version=1):
    return SealingKeySet(version, NOW, recipients)


TEXT = sign_key_set(key_set(recipient("a"), recipient("b", suite=SealingSuite.MLKEM768_X25519)), SIGNER)
CLAIMS = jwt.decode(TEXT, options={"verify_signature": False})


def reason(text, signers=SIGNERS):
    with pytest.raises(KeySetError) as caught:
        verify_key_set(text, signers)
    return caught.value.reason


def signed(claims=CLAIMS, key=SIGNER, **header):
    return jwt.encode(claims, key, "EdDSA", headers={**HEADER, **header})


def test_a_signed_set_is_read():
    written = key_set(recipient("a", NOW, NOW + DAY), recipient("b", suite=SealingSuite.MLKEM768_X25519), version=7)
    read = verify_key_set(sign_key_set(written, SIGNER) + "\n", SIGNERS)
    assert (read.version, read.issued_at, read.recipients) == (7, NOW, written.recipients)


def test_another_signature_is_refused():
    other = Ed25519PrivateKey.generate()
    assert reason(signed(key=other)) == "signature"
    assert reason(sign_key_set(key_set(recipient("a")), other)) == "unknown_signer"
    assert reason(TEXT, {}) == "unknown_signer"
    head, _, signature = TEXT.split(".")
    changed = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "version": 9}).encode()).rstrip(b"=").decode()
    assert reason(f"{head}.{changed}.{signature}") == "signature"


def test_other_algorithms_are_refused():
    none = jwt.encode(CLAIMS, None, "none", headers=HEADER)
    assert reason(none) == "algorithm"
    body = TEXT.split(".")[1]
    for algorithm in ("none", "None", "HS256", "", 7, None):
        head = base64.urlsafe_b64encode(json.dumps({**HEADER, "alg": algorithm}).encode()).rstrip(b"=").decode()
        assert reason(f"{head}.{body}.") == "algorithm"
    with_public_key_as_secret = jwt.encode(CLAIMS, public_text(SIGNER), "HS256", headers=HEADER)
    assert reason(with_public_key_as_secret) == "algorithm"


def test_other_documents_are_refused():
    assert reason(signed(typ="license+jwt")) == "product"
    assert reason(signed(typ=None)) == "product"
    assert reason("not a set") == "malformed"
    assert reason("") == "malformed"
    assert reason("a" * (MAX_KEY_SET + 1)) == "malformed"
    assert reason(signed(crit=["exp"])) == "malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": "1"},
        {"version": None},
        {"issued_at": -1},
        {"keys": {}},
        {"keys": [{}]},
        {"keys": [{**CLAIMS["keys"][0], "public_key": "short"}]},
        {"keys": [{**CLAIMS["keys"][0], "public_key": "A" * 43}]},
        {"keys": [{**CLAIMS["keys"][0], "public_key": "!" * 43}]},
        {"keys": [{**CLAIMS["keys"][0], "key_id": ""}]},
        {"keys": [CLAIMS["keys"][0]] * 2},
        {"keys": [CLAIMS["keys"][0]] * 101},
        {"keys": [{**CLAIMS["keys"][0], "not_after": 1e300}]},
    ],
)
def test_signed_nonsense_is_refused(change):
    assert reason(signed({**CLAIMS, **change})) == "claims"


def test_newer_members_and_suites_are_ignored():
    keys = [*CLAIMS["keys"], {**CLAIMS["keys"][0], "key_id": "c", "suite": "X448", "more": 1}]
    read = verify_key_set(signed({**CLAIMS, "keys": keys, "more": {}}), SIGNERS)
    assert [one.key_id for one in read.recipients] == ["a", "b"]


@given(st.text(max_size=200))
def test_any_text_is_refused(text):
    reason(text)


def test_the_newest_valid_key_is_used():
    old, now, later = recipient("old", NOW - DAY, NOW + DAY), recipient("now", NOW), recipient("later", NOW + DAY)
    found = key_set(later, now, old)
    assert found.recipient(NOW - 1) is old
    assert found.recipient(NOW) is now
    assert found.recipient(NOW + DAY) is later
    assert found.recipient(NOW - 2 * DAY) is None
    assert key_set(old).recipient(NOW + DAY) is None
    assert key_set().recipient(NOW) is None


def test_a_key_that_ends_soon_is_used_only_if_there_is_no_other():
    ending, lasting = recipient("ending", NOW, NOW + 500), recipient("lasting", NOW - DAY)
    assert key_set(ending, lasting).recipient(NOW) is lasting
    assert key_set(ending).recipient(NOW) is ending


def test_the_suite_is_chosen():
    curve, hybrid = recipient("a"), recipient("b", suite=SealingSuite.MLKEM768_X25519)
    assert key_set(curve, hybrid).recipient(NOW) is hybrid
    assert key_set(curve, hybrid).recipient(NOW, [SealingSuite.X25519]) is curve
    assert key_set(curve).recipient(NOW, [SealingSuite.MLKEM768_X25519]) is None


def test_of_keys_with_the_same_first_use_the_last_one_is_used():
    first, last = recipient("first"), recipient("last")
    assert key_set(first, last).recipient(NOW) is last


def test_an_older_set_is_refused():
    known = key_set(recipient("a"), version=5)
    key_set(recipient("b"), version=6).check_follows(known)
    known.check_follows(known)
    for older in (key_set(recipient("a"), version=4), key_set(recipient("b"), version=5)):
        with pytest.raises(KeySetError, match="publish the newest") as caught:
            older.check_follows(known)
        assert caught.value.reason == "rolled_back"
