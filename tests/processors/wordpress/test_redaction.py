import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.processors.wordpress.redaction import Redactor

PLAIN = Redactor()
VECTORS = json.loads((Path(__file__).parents[2] / "data/wordpress/secrets.json").read_text("utf-8"))


@pytest.mark.parametrize(("query", "expected"), VECTORS["queries"])
def test_sensitive_parameters_are_redacted(query, expected):
    assert PLAIN.query(query) == expected
    assert PLAIN.url("http.url", f"127.0.0.1:8980/x?{query}#top") == f"127.0.0.1:8980/x?{expected}#top"
    assert PLAIN.url("url.query", query) == expected


def test_urls_lose_credentials_and_nothing_else():
    assert PLAIN.url("url.full", "https://ann:pw@a.example/x?y=1") == "https://REDACTED@a.example/x?y=1"
    assert PLAIN.url("url.full", "https://a.example/@ann/") == "https://a.example/@ann/"


@pytest.mark.parametrize(
    "key",
    [
        "enduser.id",
        "user.email",
        "user.id",
        "wp.user_id",
        "wordpress.user.login",
        "wp.user",
        "user_id",
        "client.address",
        "http.client_ip",
        "http.request.header.cookie",
        "http.request.header.authorization",
        "http.request.header.x-wp-nonce",
        "http.response.header.set-cookie",
        "http.request.header.x-forwarded-for",
        "http.request.header.x_api_key",
        "mine",
    ],
)
def test_attributes_of_people_are_hidden(key):
    assert Redactor(attributes=["mine"]).hides(key)


@pytest.mark.parametrize(
    "key",
    ["user_agent.original", "wordpress.user.logged_in", "server.address", "http.route", "mine", "wordpress.site.id"],
)
def test_others_stay(key):
    assert not PLAIN.hides(key)


def test_secrets_elsewhere_in_a_url_are_hidden():
    token = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    url = f"https://a.example/hook/{token}?page=2#access_token={token}"
    assert PLAIN.url("url.full", url) == "https://a.example/hook/REDACTED?page=2#access_token=REDACTED"


def test_secrets_are_taken_out_of_any_text():
    assert PLAIN.text("login of ann@a.example with password=x1") == "login of [email] with password=REDACTED"
    assert Redactor(b"k").text("password=x1") == "password=REDACTED", "a short secret can be guessed from its hash"


def test_own_parameters():
    assert Redactor(parameters=["Voucher"]).query("voucher=1&p=2") == "voucher=REDACTED&p=2"


def test_mail_addresses_are_taken_out_of_any_text():
    assert PLAIN.text("cannot mail ann+x@mail.a.example, or b@c") == "cannot mail [email], or b@c"


def test_hashes_keep_equal_values_equal_and_need_the_key():
    one, other = Redactor(b"k1"), Redactor(b"k2")
    assert one.replacement("7") == one.replacement("7") != other.replacement("7")
    assert one.query("s=a%20b") == one.query("s=a+b") != one.query("s=c")
    assert one.text("A@b.example") == one.text("a@b.example")
    assert "a@b" not in one.text("a@b.example")
    assert PLAIN.replacement("7") is None


@given(st.text(min_size=1).filter(lambda value: "&" not in value and value not in "_wpnonce=REDACTED"))
def test_no_nonce_survives(value):
    assert PLAIN.query(f"_wpnonce={value}") == "_wpnonce=REDACTED"


@pytest.mark.parametrize("text", ["a" * 100_000 + "@", "a@" * 50_000, "a@" + "b." * 50_000, "//" + "a" * 100_000])
def test_hostile_texts_cost_one_pass(text):
    started = time.process_time()
    PLAIN.text(text)
    PLAIN.url("url.full", text)
    assert time.process_time() - started < 5
