"""Tokens that must be refused, all with the same answer, and those that must not."""

import hashlib
import hmac
import time

import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.codecs.compact_jws import MAX_HEADER
from otelwp_agent.component import Kind
from otelwp_agent.errors import UnauthenticatedError
from otelwp_agent.extensions.oidc import FACTORY, Config
from otelwp_agent.extensions.oidc.keys import MAX_KID, parse_key_set
from otelwp_agent.extensions.oidc.tokens import MAX_TOKEN
from otelwp_agent.testing.fakes import make_context
from tests.kit.oidc import AUDIENCE, SigningKey, encoded

URL = "https://login.example"
KEY = SigningKey("k1")
HEADER = {"alg": "RS256", "kid": "k1"}
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@pytest.fixture(scope="module")
def extension(tmp_path_factory):
    """An extension with the keys of a file, so that no test needs a server."""
    return make(tmp_path_factory.mktemp("keys"), KEY.jwk())


def make(folder, *jwks):
    file = folder / "keys.json"
    file.write_bytes(orjson.dumps({"keys": jwks}))
    config = Config.model_validate({"issuer_url": URL, "audience": AUDIENCE, "public_keys_file": str(file)})
    extension = FACTORY.build(config, make_context(Kind.EXTENSION, "oidc"))
    extension.refresh()
    return extension


def claims(**changes):
    now = int(time.time())
    right = {"iss": URL, "aud": AUDIENCE, "sub": "agent-1", "exp": now + 300}
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


def accepts(extension, value):
    """Return whether a header's value is accepted; if not, check that the answer is the same as ever."""
    try:
        extension.authenticate({"authorization": value}, "10.0.0.1", None)
    except UnauthenticatedError as error:
        refusal = error
    else:
        return True
    assert (str(refusal), refusal.challenges) == ("a valid credential is needed", ("Bearer",))
    assert (refusal.__cause__, refusal.__suppress_context__) == (None, True)
    return False


def check_refused(extension, value, reason):
    before = {name: counter.value for name, counter in extension._refusals.items()}
    assert not accepts(extension, value)
    assert [name for name, counter in extension._refusals.items() if counter.value != before[name]] == [reason]


def hmac_token(header, secret):
    """Return a token that is signed with HMAC."""
    signed = f"{encoded(header)}.{encoded(claims())}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_accepted_algorithm_verifies(tmp_path, algorithm):
    key = SigningKey("k1", algorithm)
    for members in ({}, {"alg": None}, {"use": None}, {"key_ops": ["verify"]}):
        assert accepts(make(tmp_path, key.jwk(**members)), f"Bearer {key.token(claims())}")
    other = SigningKey("k1", algorithm, number=1)
    if algorithm[:2] not in {"RS", "PS"}:
        assert not accepts(make(tmp_path, other.jwk()), f"Bearer {key.token(claims())}")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x"])
def test_a_missing_token(extension, value):
    check_refused(extension, value, "missing")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b",
        "a.b.c.d",
        "..",
        "é.é.é",
        "\ud800.\ud800.\ud800",
        "a b.c d.e f",
        f"{encoded(b'[]')}.{encoded(b'{}')}.AA",
        f"{encoded(b'{')}.{encoded(b'{}')}.AA",
        f"{encoded(b'[' * 3000)}.{encoded(b'{}')}.AA",
        "x" * (MAX_TOKEN + 1),
        f"{encoded({**HEADER, 'x': 'x' * MAX_HEADER})}.{encoded(claims())}.AA",
    ],
)
def test_a_malformed_token(extension, token):
    check_refused(extension, f"Bearer {token}", "malformed")


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "", "HS256", "HS512", "RS1", "ES256K", "rs256", None, 1, ["RS256"]]
)
def test_no_other_algorithm_is_accepted(extension, name):
    for end in ("", encoded(b"x" * 256)):
        check_refused(extension, f"Bearer {encoded({**HEADER, 'alg': name})}.{encoded(claims())}.{end}", "algorithm")


@pytest.mark.parametrize(
    "form", [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.PKCS1)]
)
@pytest.mark.parametrize("name", ["HS256", "RS256"])
def test_the_public_key_is_no_secret_for_hmac(extension, form, name):
    secret = KEY.private.public_key().public_bytes(*form)
    token = hmac_token({**HEADER, "alg": name}, secret)
    check_refused(extension, f"Bearer {token}", "algorithm" if name == "HS256" else "signature")


def test_a_key_is_used_with_its_own_algorithms_only(tmp_path):
    rs, es = SigningKey("k1", "RS256"), SigningKey("k1", "ES256")
    check_refused(make(tmp_path, rs.jwk()), f"Bearer {SigningKey('k1', 'PS256').token(claims())}", "key")
    check_refused(make(tmp_path, rs.jwk(alg=None)), f"Bearer {es.token(claims())}", "key")
    assert accepts(make(tmp_path, rs.jwk(), es.jwk()), f"Bearer {es.token(claims())}"), "one id, two kinds of keys"


@pytest.mark.parametrize("kid", [None, "", 1, ["k1"], "k2", "K1", "k1 ", "x" * (MAX_KID + 1)])
def test_a_missing_or_unknown_key_id(extension, kid):
    header = {**HEADER, "kid": kid} if kid is not None else {"alg": "RS256"}
    check_refused(extension, f"Bearer {KEY.sign(header, claims())}", "key")


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}]
)
def test_header_extensions_are_not_supported(extension, extra):
    check_refused(extension, f"Bearer {KEY.sign({**HEADER, **extra}, claims())}", "malformed")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": None}, "issuer"),
        ({"iss": f"{URL}/"}, "issuer"),
        ({"iss": [URL]}, "issuer"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"aud": None}, "audience"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": [1]}, "audience"),
        ({"aud": {AUDIENCE: 1}}, "audience"),
        ({"aud": AUDIENCE + "x"}, "audience"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": 7}, "claims"),
        ({"sub": "a\nb"}, "claims"),
        ({"exp": None}, "claims"),
        ({"exp": "1999999999"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": [1]}, "malformed"),
        ({"exp": -1}, "expired"),
        ({"iat": "now"}, "malformed"),
        ({"jti": 1}, "claims"),
    ],
)
def test_wrong_claims(extension, changes, reason):
    check_refused(extension, f"Bearer {KEY.sign(HEADER, claims(**changes))}", reason)


@pytest.mark.parametrize(
    ("name", "seconds", "reason"),
    [
        ("exp", -33, "expired"),
        ("exp", -20, ""),
        ("nbf", 20, ""),
        ("nbf", 40, "not_yet_valid"),
        ("iat", 20, ""),
        ("iat", 40, "not_yet_valid"),
    ],
)
def test_clocks_may_differ_by_thirty_seconds(extension, name, seconds, reason):
    value = f"Bearer {KEY.sign(HEADER, claims(**{name: int(time.time()) + seconds}))}"
    if reason:
        check_refused(extension, value, reason)
    else:
        assert accepts(extension, value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        b'{"iss":"%s","iss":"%s"}' % (URL.encode(), URL.encode()),
        b'{"iss":"%s","exp":NaN}' % URL.encode(),
        b'{"iss":"%s","exp":Infinity}' % URL.encode(),
        b'{"iss":"%s","exp":1e999}' % URL.encode(),
        b'{"iss":"%s","exp":%s}' % (URL.encode(), b"9" * 5000),
        b'{"iss":"%s","a":{"b":1,"b":2}}' % URL.encode(),
        b'{"a":' * 1500 + b"1" + b"}" * 1500,
    ],
)
def test_invalid_json_in_a_signed_token(extension, payload):
    check_refused(extension, f"Bearer {KEY.sign(HEADER, payload)}", "malformed")


def test_repeated_names_in_a_header(extension):
    header = b'{"alg":"none","alg":"RS256","kid":"k1"}'
    check_refused(extension, f"Bearer {KEY.sign(header, claims())}", "malformed")


def test_every_change_of_one_character_is_refused(extension):
    token = KEY.token(claims())
    assert accepts(extension, f"Bearer {token}")
    for place in range(0, len(token) - 1, 7):  # the last character of a signature has bits that mean nothing
        other = "A" if token[place] != "A" else "B"
        assert not accepts(extension, f"Bearer {token[:place]}{other}{token[place + 1 :]}")
    for cut in (1, 10, 100, len(token) - 5):
        assert not accepts(extension, f"Bearer {token[:-cut]}")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope"])


@settings(max_examples=150, deadline=None)
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk"]), ANY_JSON),
    change=st.dictionaries(NAMES, ANY_JSON),
)
def test_whatever_is_signed_is_accepted_or_refused_in_one_way(extension, header, change):
    accepts(extension, f"Bearer {KEY.sign({**HEADER, **header}, {**claims(), **change})}")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused(extension, text):
    assert not accepts(extension, f"Bearer {text}")


# --- key sets ---


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"kty": "oct", "kid": "a", "k": "AAAA"},
        {"kty": "RSA", "kid": "a"},
        {"kty": "RSA", "kid": "a", "n": "AAAA", "e": "AQAB"},
        {"kty": "RSA", "kid": "a", "n": "!", "e": [1]},
        {"kty": ["RSA"], "kid": "a"},
        {"kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "a", "crv": "Ed25519", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "a", "crv": ["P-256"]},
        {"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "AA"},
        {"kty": "OKP", "kid": "a", "crv": "X25519", "x": "AA"},
        KEY.jwk(kid=None),
        KEY.jwk(kid=""),
        KEY.jwk(kid=7),
        KEY.jwk(kid="x" * (MAX_KID + 1)),
        KEY.jwk(use="enc"),
        KEY.jwk(key_ops=["encrypt"]),
        KEY.jwk(key_ops="verify "),
        KEY.jwk(alg="HS256"),
        KEY.jwk(alg="RSA-OAEP"),
        SigningKey("a", bits=1024).jwk(),
    ],
)
def test_unusable_keys_are_ignored_and_counted(entry):
    found = parse_key_set(orjson.dumps({"keys": [entry, KEY.jwk()]}))
    assert (found.ids, found.ignored) == ({"k1"}, 1)
    assert found.get("k1", "RS256") is not None
    assert found.get("k1", "HS256") is None


def test_private_keys_in_a_set_are_read_as_public_ones():
    import jwt

    private = jwt.get_algorithm_by_name("RS256").to_jwk(KEY.private, as_dict=True)
    found = parse_key_set(orjson.dumps({"keys": [{**private, "kid": "k1", "key_ops": ["verify"]}]}))
    assert not hasattr(found.get("k1", "RS256"), "sign")
