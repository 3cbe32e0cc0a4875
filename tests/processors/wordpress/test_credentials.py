"""Secrets in text: the same table is tested for the plugin, in `tests/wordpress/test_redact.py`."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.processors.wordpress import credentials

VECTORS = json.loads((Path(__file__).parents[2] / "data/wordpress/secrets.json").read_text("utf-8"))


@pytest.mark.parametrize(("text", "expected"), VECTORS["redacted"])
def test_secrets_are_replaced(text, expected):
    assert credentials.redact(text) == expected
    assert credentials.redact(expected) == expected


@pytest.mark.parametrize("text", VECTORS["plain"])
def test_ordinary_text_stays(text):
    assert credentials.redact(text) == text


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=60), st.text(max_size=20))
def test_no_password_survives(password, before):
    for form in ("password={}", "password='{}'", "api_key: {}", '"secret":"{}"', "token={}"):
        assert credentials.redact(before + " " + form.format(password)).endswith(form.format("REDACTED"))


HOSTILE = [
    "a" * 1_000_000,
    "password" * 50_000,
    "password=" * 50_000,
    'password="' * 50_000,
    'password=\\"' * 50_000,
    "token:" * 50_000,
    "key/" * 100_000,
    "key " * 100_000,
    "bearer+" * 60_000,
    "bearer " * 60_000,
    "eyJ-" * 100_000,
    "eyJ%3D" * 60_000,
    "SG." * 100_000,
    "xoxb-" * 60_000,
    "://" * 100_000,
    "://a" * 100_000 + "@",
    "-----BEGIN PRIVATE KEY-----" * 10_000,
    "authorization:" * 30_000,
    "cookie: \\" * 30_000,
    "secret is in by like " * 20_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_texts_cost_one_pass(text):
    """Twice the text costs about twice the time: a quadratic pattern would need minutes for these."""
    started = time.process_time()
    credentials.redact(text)
    assert time.process_time() - started < 20
