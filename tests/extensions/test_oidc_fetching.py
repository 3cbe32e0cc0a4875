"""How the keys of an issuer are fetched, and what happens while they cannot be."""

import asyncio
import json
import ssl
from pathlib import Path

import pytest
import structlog

from otelwp_agent.component import Kind
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.extensions.oidc import FACTORY, Config, provider
from otelwp_agent.extensions.oidc.keys import MAX_KEYS
from otelwp_agent.testing.fakes import FakeClock, make_context
from otelwp_agent.transport.documents import MAX_DOCUMENT
from tests.kit.certificates import Authority
from tests.kit.graphs import until
from tests.kit.oidc import DISCOVERY, Issuer, SigningKey, client, outcome, refusals, running


async def test_requests_wait_for_the_first_keys_and_malformed_ones_do_not(issuer):
    issuer.open.clear()
    async with running(issuer, wait=False) as extension:
        with pytest.raises(RetryableError) as caught:
            client(extension, issuer.token())
        assert caught.value.retry_after == 1
        assert outcome(extension, "nonsense") == 401
        assert "were not fetched yet" in extension.health().message
        issuer.open.set()
        await until(lambda: extension.health().healthy)
        assert outcome(extension, issuer.token()) == 200
        assert refusals(extension, "unavailable") == 1


async def test_an_unknown_key_is_fetched_at_most_once_in_ten_seconds(issuer):
    clock = FakeClock(1000.0)
    new = SigningKey("k2", "ES256")
    async with running(issuer, clock=clock, refresh_interval="1h") as extension:
        await until(lambda: issuer.fetches == 1)
        issuer.open.clear()
        assert [outcome(extension, issuer.token(SigningKey(f"unknown-{n}", number=1))) for n in range(50)] == [503] * 50
        assert outcome(extension, issuer.token()) == 200, "known keys are not affected"
        issuer.open.set()
        await until(lambda: outcome(extension, issuer.token(SigningKey("unknown", number=1))) == 401)
        assert issuer.fetches == 2
        issuer.keys.append(new)
        clock.now += provider.UNKNOWN_EVERY - 0.1
        assert [outcome(extension, issuer.token(new)) for _ in range(5)] == [401] * 5
        clock.now += 0.2
        assert outcome(extension, issuer.token(new)) == 503
        await until(lambda: outcome(extension, issuer.token(new)) == 200)
        assert issuer.fetches == 3


async def test_a_removed_key_is_refused_after_the_next_fetch_and_a_replaced_one_too(issuer):
    old, other = issuer.keys[0], SigningKey("k1", number=1)
    async with running(issuer, refresh_interval="100ms") as extension:
        assert outcome(extension, issuer.token(old)) == 200
        with structlog.testing.capture_logs() as logs:
            issuer.keys[:] = [other]
            await until(lambda: outcome(extension, issuer.token(old)) == 401)
            assert outcome(extension, issuer.token(other)) == 200
            issuer.keys[:] = []
            await until(lambda: outcome(extension, issuer.token(other)) in {401, 503})
        await until(lambda: outcome(extension, issuer.token(other)) == 401)
        assert [(entry["event"], entry["removed"]) for entry in logs] == [("keys changed", 1)]


async def test_an_issuer_that_is_away_changes_nothing_until_the_keys_are_too_old(issuer, monkeypatch):
    monkeypatch.setattr(provider, "FIRST_RETRY", 0.05)
    async with running(issuer, refresh_interval="100ms", keys_max_age="1500ms") as extension:
        version = extension.version
        issuer.answers["/keys"] = 500, {}, b"broken"
        with structlog.testing.capture_logs() as logs:
            await until(lambda: not extension.health().healthy)
            message = f"{issuer.url}: keys at {issuer.url}/keys: HTTP 500: broken"
            assert extension.health().message == message
            assert (outcome(extension, issuer.token()), extension.version) == (200, version)
            assert outcome(extension, issuer.token(SigningKey("k9"))) == 503, "it may be a new key"
            await until(lambda: outcome(extension, issuer.token()) == 503)
        assert extension.version != version
        assert [entry["log_level"] for entry in logs] == ["warning", "error"]
        failures = extension.context.registry.value("otelwp_oidc_fetch_failures", extension="oidc", issuer=issuer.url)
        assert failures > 1
        del issuer.answers["/keys"]
        await until(lambda: outcome(extension, issuer.token()) == 200)
        assert extension.health().healthy


async def test_a_provider_that_does_not_answer_is_given_up(issuer):
    issuer.open.clear()
    async with running(issuer, wait=False, timeout="100ms") as extension:
        await until(lambda: "did not answer within 100ms" in extension.health().message)
        assert outcome(extension, issuer.token()) == 503


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        (DISCOVERY, (404, {}, b""), "discovery document: HTTP 404"),
        (DISCOVERY, (302, {"Location": "https://evil.example/"}, b""), "redirect to https://evil.example/"),
        (DISCOVERY, (200, {}, b"<html>"), "discovery document: it is not JSON"),
        (DISCOVERY, (200, {}, b"[]"), "discovery document: it is not a JSON object"),
        (
            DISCOVERY,
            (200, {}, b'{"issuer": "https://evil.example"}'),
            "its `issuer` is not the configured `issuer_url`",
        ),
        ("jwks_uri", None, "it has no `jwks_uri`"),
        ("jwks_uri", "http://192.0.2.1/keys", "is not encrypted, so keys could be replaced on the way: use https"),
        ("jwks_uri", "file:///etc/passwd", "`jwks_uri`: "),
        ("jwks_uri", "https://" + "a" * 70 + ".example/", "keys at https://aaa"),
        ("jwks_uri", "http://127.0.0.1:1/keys", "cannot connect to 127.0.0.1:1"),
        ("/keys", (200, {}, b"x" * (MAX_DOCUMENT + 1)), f"the answer is larger than {MAX_DOCUMENT} bytes"),
        ("/keys", (200, {}, b"x" * 5 * 2**20), f"the answer is larger than {MAX_DOCUMENT} bytes"),
        ("/keys", (200, {}, b"[" * 100_000), "is not JSON"),
        ("/keys", (200, {}, b"{}"), "is not a JWK set"),
        ("/keys", (200, {}, b'{"keys": {}}'), "is not a JWK set"),
        ("/keys", (200, {}, json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode()), f"more than {MAX_KEYS} keys"),
        ("/keys", (200, {"Content-Length": "99"}, b"{}"), "did not answer within"),
    ],
)
async def test_a_wrong_answer_of_an_issuer_is_reported_and_keeps_the_keys(issuer, path, answer, words):
    async with running(issuer, timeout="300ms", refresh_interval="1h") as extension:
        if path == "jwks_uri":
            issuer.changes[path] = answer
        else:
            issuer.answers[path] = answer
        extension.refresh()
        await until(lambda: not extension.health().healthy)
        assert words in extension.health().message
        assert outcome(extension, issuer.token()) == 200


async def test_the_keys_are_fetched_over_tls_from_a_trusted_server_alone(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    with Issuer(SigningKey("k1"), tls=context) as issuer:
        async with running(issuer, issuer_ca_path=authority.ca_file) as extension:
            assert outcome(extension, issuer.token()) == 200
            extension.refresh()
        async with running(issuer, wait=False) as extension:
            await until(lambda: "its certificate is not accepted" in extension.health().message)
            assert outcome(extension, issuer.token()) == 503
    with pytest.raises(StartError, match=r"extensions/oidc: .*none\.pem"):
        async with running(issuer, issuer_ca_path=str(tmp_path / "none.pem")):
            pass


async def test_refresh_reads_the_authorities_again(tmp_path, issuer):
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Path(Authority(tmp_path, "other").ca_file).read_bytes())
    config = {"issuer_url": "https://127.0.0.1:1", "audience": "a", "issuer_ca_path": str(ca_file)}
    extension = FACTORY.build(Config.model_validate(config), make_context(Kind.EXTENSION, "oidc"))
    await extension.start()
    ca_file.write_text("nothing")
    with pytest.raises(StartError, match="contains no PEM certificate"):
        extension.refresh()
    await extension.shutdown()
    await asyncio.sleep(0)  # the task that was cancelled ends
