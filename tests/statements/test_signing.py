import hashlib

import jwt
import pytest

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.statements.signing import TYPE, digest, sign_statement, verify_statement
from otelwp_agent.statements.statement import StatementError
from tests.statements.test_statement import STATEMENT


def test_a_signed_statement_is_read(key, keys):
    text = sign_statement(STATEMENT, key)
    assert verify_statement(text, keys) == STATEMENT
    assert digest(text) == hashlib.sha256(text.encode()).hexdigest()
    assert jwt.get_unverified_header(text)["typ"] == TYPE


def test_every_changed_character_is_noticed(key, keys):
    text = sign_statement(STATEMENT, key)
    for place in range(0, len(text), 3):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(StatementError):
            verify_statement(text[:place] + other + text[place + 1 :], keys)
    with pytest.raises(StatementError):
        verify_statement(text[:-1], keys)
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef":  # several of them decode to the same bytes
        if last != text[-1]:
            with pytest.raises(StatementError):
                verify_statement(text[:-1] + last, keys)


def test_another_key_and_other_documents_are_refused(key, keys):
    text = sign_statement(STATEMENT, generate_key())
    with pytest.raises(StatementError, match=r"it is signed with key .*, which was not given"):
        verify_statement(text, keys)
    for headers, algorithm in (({"typ": "license+jwt"}, "EdDSA"), ({"typ": TYPE}, "none")):
        signer = key if algorithm != "none" else None
        other = jwt.encode(STATEMENT.to_claims(), signer, algorithm, {**headers, "kid": key_id(public_text(key))})
        with pytest.raises(StatementError, match="this is not a statement: its header does not have"):
            verify_statement(other, keys)
    with pytest.raises(StatementError, match="this is not a statement: it does not have three parts"):
        verify_statement("text", keys)


def test_a_signed_text_that_is_no_statement_is_refused(key, keys):
    headers = {"typ": TYPE, "kid": key_id(public_text(key))}
    with pytest.raises(StatementError, match="it has version None"):
        verify_statement(jwt.encode({}, key, "EdDSA", headers), keys)
