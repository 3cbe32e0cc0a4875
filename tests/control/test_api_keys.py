import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.control import api_keys
from otelwp_agent.control.api_keys import API_KEY, OPERATOR_TOKEN, Hasher

PEPPER = b"p" * 32
KEY = api_keys.generate(Hasher(PEPPER))


def test_a_key_has_its_form_and_is_different_each_time():
    assert re.fullmatch(r"wpo_live_[a-z2-7]{16}_[a-z2-7]{32}[0-9a-f]{8}", KEY.text)
    assert api_keys.parse(KEY.text) == KEY.id
    other = api_keys.generate(Hasher(PEPPER))
    assert (other.id != KEY.id, other.text[25:] != KEY.text[25:]) == (True, True)


def test_a_token_of_an_operator_is_no_api_key():
    token = api_keys.generate(Hasher(PEPPER), OPERATOR_TOKEN)
    assert token.text.startswith("wpo_op_")
    assert api_keys.parse(token.text, OPERATOR_TOKEN) == token.id
    assert api_keys.parse(token.text) is None
    assert api_keys.parse(KEY.text, OPERATOR_TOKEN) is None


@pytest.mark.parametrize("pepper", [b"p" * 32, b"q" * 64, b"r" * 100])
def test_the_hash_is_hmac_sha_256(pepper):
    assert Hasher(pepper).hash(KEY.text) == hmac.digest(pepper, KEY.text.encode(), hashlib.sha256)


def test_only_the_same_key_and_pepper_match():
    assert Hasher(PEPPER).matches(KEY.text, KEY.hash)
    assert not Hasher(b"q" * 32).matches(KEY.text, KEY.hash)
    assert not Hasher(PEPPER).matches(api_keys.generate(Hasher(PEPPER)).text, KEY.hash)


def test_the_fingerprint_identifies_the_pepper():
    assert Hasher(PEPPER).fingerprint() == Hasher(PEPPER).fingerprint() != Hasher(b"q" * 32).fingerprint()
    assert len(Hasher(PEPPER).fingerprint()) == 64


@pytest.mark.parametrize("length", range(len(KEY.text)))
def test_a_truncated_key_is_found_without_the_store(length):
    assert api_keys.parse(KEY.text[:length]) is None


@pytest.mark.parametrize("position", range(len(KEY.text)))
def test_a_wrong_character_is_found_without_the_store(position):
    for character in "a0_é\0":
        if KEY.text[position] != character:
            assert api_keys.parse(KEY.text[:position] + character + KEY.text[position + 1 :]) is None


def test_a_checksum_has_one_form():
    assert api_keys.parse(KEY.text[:-8] + KEY.text[-8:].upper()) is None or KEY.text[-8:].isdecimal()
    assert api_keys.parse(KEY.text + "0") is None


@given(st.text())
def test_any_text_is_refused_without_an_error(text):
    assert api_keys.parse(text) is None
    assert api_keys.parse(API_KEY + text) is None
