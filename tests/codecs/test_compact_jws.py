"""A JWS is parsed strictly: what two parsers could read differently is refused."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.codecs.compact_jws import MAX_HEADER, MalformedJwsError, decode_base64url, read_jws

REPEATED = b'{"a":1,"a":2}'


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_parts_are_decoded():
    text = f"{part({'alg': 'EdDSA'})}.{part({'a': 1})}.{part(b'signature')}"
    jws = read_jws(text, max_length=len(text))
    assert (jws.header, jws.claims, jws.signature) == ({"alg": "EdDSA"}, {"a": 1}, b"signature")
    assert jws.signed.decode() == text.rpartition(".")[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        (f"{part({'x': 'x' * MAX_HEADER})}.{part({})}.AA", "three parts"),
        ("x" * 10_001, "longer than 10000"),
        (f"{part([])}.{part({})}.AA", "header is not a JSON object"),
        (f"{part({})}.{part(b'[' * 3000)}.AA", "payload is not JSON"),
        (f"{part({})}.{part(b'NaN')}.AA", "payload is not JSON"),
        (f"{part({})}.{part(REPEATED)}.AA", "payload is not JSON"),
        (f"{part({'crit': ['x']})}.{part({})}.AA", "extension"),
        (f"{part({'b64': False})}.{part({})}.AA", "extension"),
        (f"{part({})}.{part({})}.é", "not base64url"),
        (f"{part({})}.{part({})}.a+b/", "not base64url"),
    ],
)
def test_malformed_texts_are_refused_with_the_reason(text, why):
    with pytest.raises(MalformedJwsError, match=why):
        read_jws(text, max_length=10_000)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(MalformedJwsError):
        read_jws(text, max_length=1000)


@given(st.binary(max_size=64))
def test_base64url_is_reversed(data):
    assert decode_base64url(part(data)) == data
