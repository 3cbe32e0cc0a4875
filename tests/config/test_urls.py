"""URLs that secrets or keys are fetched from need TLS, except on this host."""

import pytest

from otelwp_agent.config.urls import encrypted_url_problem


def problem(url):
    return encrypted_url_problem(url, "https://right.example", "it could be read")


@pytest.mark.parametrize(
    "url",
    [
        "https://license.example",
        "https://license.example:8443/a",
        "http://127.0.0.1:8",
        "http://localhost",
        "http://[::1]:9",
    ],
)
def test_encrypted_and_local_urls_are_accepted(url):
    assert problem(url) == ""


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://license.example", "is not encrypted, so it could be read: use https"),
        ("license.example:443", "write one like `https://right.example`"),
        ("unix:///run/license.sock", "is not a URL"),
        ("https://user:password@license.example", "must not contain a user"),
        ("ftp://license.example", "unknown scheme"),
        ("https://license.example:99999", "not an endpoint"),
    ],
)
def test_others_are_refused(url, why):
    assert why in problem(url)
    assert "password@" not in problem(url)
