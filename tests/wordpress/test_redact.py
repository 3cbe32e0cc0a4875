"""What the plugin takes out of text before it leaves the host. The agent is tested with the same table."""

import json

import pytest

from tests.wordpress.conftest import ROOT

VECTORS = json.loads((ROOT / "tests/data/wordpress/secrets.json").read_text("utf-8"))
SECRETS = "return array_map(['Otelwp\\Secrets', 'redact'], $data);"
HOSTILE = [
    "a",
    "password",
    "password=",
    'password="',
    'password=\\"',
    "token:",
    "key/",
    "bearer+",
    "eyJ-",
    "SG.",
    "://a",
]
HOSTILE += ["-----BEGIN PRIVATE KEY-----", "cookie: \\", "secret is in by like ", "?a=", "a.b@"]
TOKEN = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"


def test_secrets_are_replaced(php):
    texts = [text for text, _ in VECTORS["redacted"]]
    assert list(zip(texts, php(SECRETS, texts), strict=True)) == [tuple(pair) for pair in VECTORS["redacted"]]


def test_ordinary_text_stays(php):
    assert php(SECRETS, VECTORS["plain"]) == VECTORS["plain"]


def test_query_strings_lose_what_is_secret(php):
    queries = [query for query, _ in VECTORS["queries"]]
    found = php("return array_map(['Otelwp\\Redact', 'query'], $data);", queries)
    assert list(zip(queries, found, strict=True)) == [tuple(pair) for pair in VECTORS["queries"]]


def test_messages_lose_secrets(php):
    message = f"Cannot clone https://ann:pw@git.example/x with {TOKEN}, password='a b', for bob@example.org"
    assert php("return Otelwp\\Redact::text($data);", message) == (
        "Cannot clone https://REDACTED@git.example/x with REDACTED, password='REDACTED', for [email]"
    )


def test_a_secret_that_is_cut_off_is_dropped(php):
    """The message is cut at 4096 bytes, and what precedes the token shrinks to a few."""
    message = "https://x.example/?a=" + "x" * 4050 + " " + TOKEN
    assert php("return Otelwp\\Redact::text($data);", message) == "https://x.example/?[query] "


@pytest.mark.parametrize(
    "code",
    [
        "Otelwp\\Secrets::redact($data)",
        "Otelwp\\Redact::text($data)",
        "Otelwp\\Redact::query($data)",
        "Otelwp\\Collect\\Sql::message($data)",
        "Otelwp\\Collect\\Sql::shape($data)",
        "Otelwp\\Redact::error(new Exception($data))",
    ],
)
def test_nothing_passes_when_pcre_gives_up(php, code):
    text = "a 'ordinary' b=secretive c" * 20
    limited = f"ini_set('pcre.jit', '0'); ini_set('pcre.backtrack_limit', '1'); return {code};"
    assert "secretive" not in php(limited, text)


@pytest.mark.parametrize("repeated", HOSTILE)
def test_hostile_texts_cost_one_pass(php, repeated):
    """A quadratic pattern would need minutes for a million bytes."""
    clean, seconds = php(
        """
        $text = str_repeat($data, intdiv(1000000, strlen($data))); $t = hrtime(true);
        $clean = Otelwp\\Secrets::redact($text); Otelwp\\Redact::text($text);
        return [strlen($clean), (hrtime(true) - $t) / 1e9];
        """,
        repeated,
    )
    assert clean > 0
    assert seconds < 2


def test_an_exception_in_the_log_is_one_line_without_secrets(php):
    """Neither its trace, which holds arguments, nor line breaks that would look like entries of their own."""
    line = php(
        """
        function fails($argument) { throw new DomainException("no\\n[forged] entry\\x1b[31m, password=hunter2"); }
        try { fails('hunter3'); } catch (Throwable $error) { return Otelwp\\Redact::error($error); }
        """
    )
    assert line.startswith("DomainException: no [forged] entry [31m, password=REDACTED in ")
    assert "hunter" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ("unixgram:///run/otelwp/datagram.sock", "unixgram:///run/otelwp/datagram.sock"),
        ("udp://[::1]:4319", "udp://[::1]:4319"),
        ("http://agent:4318/t/s3cr3t/v1/traces", "http://agent:4318/[redacted]"),
        ("https://ann:s3cr3t@collector.example/v1/traces", "https://collector.example/v1/traces"),
        ("https://collector.example?key=s3cr3t", "https://collector.example[redacted]"),
        ("s3cr3t", "[redacted]"),
    ],
)
def test_addresses_are_shown_without_secrets(php, address, shown):
    assert php("return Otelwp\\Redact::address($data);", address) == shown
