"""Signed toggles, as the agent signs them: which ones the plugin obeys."""

import time
from datetime import UTC, datetime

import jwt
import pytest

from otelwp_agent.control.fleet.signed_toggles import AUDIENCE, TYPE, ToggleSigner
from otelwp_agent.control.fleet.toggles import KEYS
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text

VERIFY = """
    return array_map(static function ($case) {
        $found = Otelwp\\Toggles::verify($case['jws'], $case['installation'], $case['key'], time(), $case['since']);
        return is_wp_error($found) ? $found->get_error_message() : $found;
    }, $data);
"""


@pytest.fixture(scope="module")
def key():
    return generate_key()


def case(jws, key, *, installation="id-1", since=0):
    return {"jws": jws, "installation": installation, "key": key, "since": since}


def test_the_signature_of_the_agent_is_verified(php, key):
    signer = ToggleSigner(3600.0)
    signer.use(private_pem(key).decode())
    now = time.time()
    state = dict.fromkeys(KEYS, False) | {"block_plugin": True, "rate_limit": True}
    (found,) = php(VERIFY, [case(signer.sign("id-1", state, [], now), public_text(key))])
    assert found == {"on": ["block_plugin", "rate_limit"], "until": int(now + 3600), "at": int(now)}


def test_what_is_not_obeyed(php, key):
    now = int(datetime.now(UTC).timestamp())
    claims = {"aud": AUDIENCE, "sub": "id-1", "iat": now, "exp": now + 3600, "toggles": {"block_plugin": True}}
    public = public_text(key)

    def sign(by=key, typ=TYPE, algorithm="EdDSA", **changed):
        return jwt.encode(claims | changed, by, algorithm, headers={"typ": typ})

    good = sign()
    head, body, signature = good.split(".")
    cases = {
        "no public key": [case(good, "")],
        "public key in the settings is invalid": [case(good, "!" * 43), case(good, "\0" * 43), case(good, "short")],
        "contains no signed toggles": [
            *(case(jws, public) for jws in (None, "", "a.b", [good], {"jws": good}, 7, f"{good}.{'x' * 4096}"))
        ],
        "the signature is invalid": [
            case(sign(generate_key()), public),
            case(good, public_text(generate_key())),
            case(f"{head}.{body}.", public),
            case(f"{head}.{body}x.{signature}", public),
            case(jwt.encode(claims, "secret" * 8, "HS256", headers={"typ": TYPE}), public),
            case(jwt.encode(claims, None, "none", headers={"typ": TYPE}), public),
        ],
        "does not contain toggles": [
            *(case(sign(**changed), public) for changed in ({"aud": "other"}, {"toggles": True}, {"exp": 1e11})),
            case(sign(typ="JWT"), public),
        ],
        "another installation": [case(good, public, installation="id-2"), case(good, public, installation="")],
        "have expired": [case(sign(exp=now - 1), public)],
        "older than the toggles of an earlier answer": [case(good, public, since=now + 1)],
    }
    found = php(VERIFY, [each for several in cases.values() for each in several])
    wanted = [reason for reason, several in cases.items() for _ in several]
    assert [message for message, reason in zip(found, wanted, strict=True) if reason not in message] == []


def test_only_known_toggles_that_are_true_count(php, key):
    now = int(time.time())
    toggles = {"block_plugin": "yes", "force_update": 1, "enable_debug": True, "delete_everything": True}
    claims = {"aud": AUDIENCE, "sub": "id-1", "iat": now, "exp": now + 3600, "toggles": toggles}
    (found,) = php(VERIFY, [case(jwt.encode(claims, key, "EdDSA", headers={"typ": TYPE}), public_text(key))])
    assert found["on"] == ["enable_debug"]
