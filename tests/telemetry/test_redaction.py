from __future__ import annotations

import itertools
import string
import uuid
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otelwp_agent.telemetry.redaction import MASK, looks_like_token, redact_path, redact_text, redact_url

NAMES = ["v1", "traces", "api", "otlp-http-production", "eu-west-1", "TelemetryIngestService", "spans", "project_42"]
ALPHANUMERIC = string.ascii_letters + string.digits

names = st.sampled_from(NAMES)
hosts = st.sampled_from(["api.example", "api.example:4318", "127.0.0.1:4317", "[::1]:4318", "in.logs.example.com"])
hexes = st.binary(min_size=12, max_size=32).map(bytes.hex).filter(lambda text: not text.isdigit())
mixed = st.text(ALPHANUMERIC, min_size=20, max_size=64).filter(
    lambda text: sum(a.isdigit() != b.isdigit() for a, b in itertools.pairwise(text)) >= 4
)
tokens = hexes | mixed | st.uuids().map(str) | mixed.map(lambda text: f"sk_live_{text}")
values = st.text(ALPHANUMERIC + "-_.~%+:", min_size=1, max_size=40)


@given(hosts, st.lists(names, max_size=3), tokens, st.lists(names, max_size=3))
def test_a_token_in_the_path_is_gone_and_the_rest_stays(host, before, token, after):
    redacted = redact_url("/".join([f"https://{host}", *before, token, *after]))
    assert redacted == "/".join([f"https://{host}", *before, MASK, *after])


@given(hosts, st.dictionaries(st.text(string.ascii_letters + "_", min_size=1, max_size=12), values, min_size=1))
def test_every_value_of_the_query_is_gone_and_the_names_stay(host, query):
    redacted = redact_url(f"http://{host}/v1/traces?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert redacted == f"http://{host}/v1/traces?" + "&".join(f"{name}={MASK}" for name in query)


@given(hosts, st.text(ALPHANUMERIC + "-_.~%+:@/", min_size=1, max_size=30))
def test_user_and_password_are_gone(host, user):
    redacted = redact_url(f"https://{user}@{host}/v1/traces")
    assert redacted == f"https://{MASK}@{host}/v1/traces"
    assert urlsplit(redacted).hostname == urlsplit(f"https://{host}").hostname


@given(hosts, st.lists(names, max_size=6))
def test_a_url_without_secrets_stays_as_it_is(host, segments):
    url = "/".join([f"https://{host}", *segments])
    assert redact_url(url) == url
    assert redact_url(url.removeprefix("https://")) == url.removeprefix("https://")


@given(st.text(max_size=200))
@example("https://")
@example("?a")
@example("://@/?#")
def test_any_text_is_redacted_without_failing_and_twice_is_once(text):
    for redact in (redact_url, redact_path, redact_text, lambda given: redact_text(given, paths=True)):
        once = redact(text)
        assert redact(once) == once


@given(st.sampled_from(["cannot reach {}", "see {}.", "({})", '"{}"', "'{}' is wrong", "{}, or another"]), tokens)
def test_urls_in_running_text(sentence, token):
    url = f"https://u:{token}@api.example/v1/{token}/spans?key={token}"
    text = sentence.format(url)
    assert token not in redact_text(text)
    assert redact_text(text) == sentence.format(f"https://{MASK}@api.example/v1/{MASK}/spans?key={MASK}")


@given(tokens)
def test_paths_in_running_text_if_asked(token):
    text = f"404: no such path: /v1/{token}/spans?key={token}."
    assert redact_text(text) == text
    assert redact_text(text, paths=True) == f"404: no such path: /v1/{MASK}/spans?key={MASK}."


@pytest.mark.parametrize(
    ("segment", "is_token"),
    [
        (str(uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF)), True),
        ("0123456789abcdef0123456789abcdef", True),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", True),
        ("sk_live_51H8xYzKq0aBcDeFg", True),
        ("a1b2-c3d4e5-f6a7b8-9c0d1e", True),
        ("qWeRtYuIoPaSdFgHjK", True),
        ("abcdefghijklmnopqrstuvwxyzabcdef", True),
        ("4505123456789012", False),
        ("v1", False),
        ("opentelemetry-collector-contrib", False),
        ("TelemetryIngestService", False),
        ("cluster20241231production", True),
        ("production20241231", False),
        ("api-2024-production-eu-west-1", False),
        ("", False),
    ],
)
def test_what_looks_like_a_token(segment, is_token):
    assert looks_like_token(segment) is is_token


def test_addresses_and_sockets_stay():
    for address in ("localhost:4317", "unix:///run/otelwp/0123456789abcdef0123456789abcdef.sock", "*:4318", "[::1]:1"):
        assert redact_url(address) == address


def test_a_query_without_names_and_a_fragment():
    assert redact_url("https://h/p?0123secret#other") == f"https://h/p?{MASK}#{MASK}"
