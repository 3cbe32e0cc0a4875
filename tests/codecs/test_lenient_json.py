from __future__ import annotations

import json

import pytest

from otelwp_agent.codecs.lenient_json import load
from otelwp_agent.errors import MalformedError


def read(data):
    repairs = []
    return load(data, repairs.append), repairs


@pytest.mark.parametrize(
    ("data", "document", "repairs"),
    [
        (b'{"a":1}', {"a": 1}, []),
        ('"Café"'.encode("latin-1"), "Café", ["invalid_utf8"]),
        (b'"\xe2\x82\xac Caf\xe9"', "€ Café", ["invalid_utf8"]),
        (b"\xef\xbb\xbf[]", [], []),
        (b'"a\\ud800b"', "a\ufffdb", ["invalid_utf8"]),
        (b'"a\\uDC00b"', "a\ufffdb", ["invalid_utf8"]),
        (json.dumps("\U0001f600").encode(), "\U0001f600", []),
        (b"\xef\xbb\xbf" + json.dumps("\U0001f600").encode(), "\U0001f600", []),
    ],
)
def test_text_that_is_not_what_it_should_be(data, document, repairs):
    assert read(data) == (document, repairs)


def test_each_byte_that_is_not_utf8_is_read_as_latin1():
    text = bytes(range(0x80, 0x100))
    assert read(b'"%b"' % (b" ".join(text[index : index + 1] for index in range(128)))) == (
        " ".join(text.decode("latin-1")),
        ["invalid_utf8"],
    )


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff{", b'{"a":NaN}', b"[" * 5000, b'{"a":"\xe9}'])
def test_what_is_no_json_is_refused_with_its_place(data):
    with pytest.raises(MalformedError, match=r"the body is not JSON: .*column"):
        read(data)
