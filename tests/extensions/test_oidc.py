import asyncio
import contextlib
import json
import ssl
import sys
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

from otelwp_agent.component import Kind
from otelwp_agent.errors import ForbiddenError, RetryableError, StartError, UnauthenticatedError
from otelwp_agent.extensions.oidc import FACTORY, Config, provider
from otelwp_agent.extensions.oidc.keys import MAX_KEYS
from otelwp_agent.testing.fakes import FakeClock, make_context
from otelwp_agent.transport import watched_file
from otelwp_agent.transport.authentication import ATTRIBUTE_PREFIX
from otelwp_agent.transport.documents import MAX_DOCUMENT
from tests.interop.process import eventually
from tests.kit.agent import Agent
from tests.kit.certificates import Authority
from tests.kit.gates import gate
from tests.kit.graphs import until
from tests.kit.load import HttpSender
from tests.kit.oidc import AUDIENCE, DISCOVERY, Issuer, SigningKey
from tests.kit.tenants import Tenants


@pytest.fixture
def issuer():
    with Issuer(SigningKey("k1")) as issuer:
        yield issuer


@contextlib.asynccontextmanager
async def running(issuer, *, wait=True, clock=None, **settings):
    config = {"issuer_url": issuer.url, "audience": AUDIENCE, **settings}
    context = make_context(Kind.EXTENSION, "oidc", **({"clock": clock} if clock else {}))
    extension = FACTORY.build(Config.model_validate(config), context)
    await extension.start()
    try:
        if wait:
            await until(lambda: extension.health().healthy)
        yield extension
    finally:
        await extension.shutdown()
        await extension.shutdown()


def client(extension, token, header="authorization"):
    return extension.authenticate({header: f"Bearer {token}"}, "10.0.0.1", None)


def outcome(extension, token):
    """Return the status that a token gets."""
    try:
        client(extension, token)
    except UnauthenticatedError:
        return 401
    except RetryableError:
        return 503
    return 200


def refusals(extension, reason):
    return extension.context.registry.value("otelwp_oidc_refusals", extension="oidc", reason=reason)


# --- what a token says about its client ---


async def test_a_valid_token_names_tenant_subject_scopes_and_groups(issuer):
    async with running(issuer, tenant_claim="org", groups_claim="roles", username_claim="email") as extension:
        claims = issuer.claims(org="shop", roles=["a", "b", 1], email="a@shop.example", scope="ingest  usage")
        found = client(extension, issuer.keys[0].token(claims))
        assert (found.tenant, found.credential) == ("shop", "a@shop.example")
        assert found.scopes == {"ingest", "usage"}
        assert found.attributes["membership"] == ("a", "b")
        assert (found.attributes["subject"], found.attributes["claims.org"]) == ("a@shop.example", "shop")
        assert "claims.roles" not in found.attributes, "only texts and numbers"
        assert found.expires_at == claims["exp"] + 30
        assert extension.secret_headers == {"authorization"}


@pytest.mark.parametrize("tenant", [None, "", " ", "a\nb", 7, ["shop"], "x" * 257, " shop"])
async def test_a_token_without_a_usable_tenant_is_forbidden(issuer, tenant):
    async with running(issuer, tenant_claim="org") as extension:
        with pytest.raises(ForbiddenError, match="the token names no tenant"):
            client(extension, issuer.token(org=tenant))
        assert refusals(extension, "tenant") == 1


async def test_another_header_and_a_scheme_in_any_case(issuer):
    async with running(issuer, attribute="X-Token") as extension:
        assert extension.secret_headers == {"x-token"}
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert extension.authenticate({"x-token": f"{scheme} {issuer.token()}"}, "", None).credential == "agent-1"


async def test_the_audience_may_be_one_of_several_or_ignored(issuer):
    async with running(issuer) as extension:
        assert outcome(extension, issuer.token(aud=["other", AUDIENCE])) == 200
        assert outcome(extension, issuer.token(aud=["other"])) == 401
    async with running(issuer, audience="", ignore_audience=True) as extension:
        assert [outcome(extension, issuer.token(aud=aud)) for aud in ("other", None)] == [200, 200]


async def test_a_token_is_checked_with_the_settings_of_its_own_issuer(issuer):
    with Issuer(SigningKey("k1", number=1), path="/realms/b/") as other:
        own = {"issuer_url": other.url, "audience": "b"}
        async with running(issuer, providers=[own]) as extension:
            assert outcome(extension, issuer.token()) == 200
            assert outcome(extension, other.token(aud="b")) == 200
            assert outcome(extension, other.token(aud=AUDIENCE)) == 401, "the audience of the other issuer"
            assert outcome(extension, other.token(aud="b", key=issuer.keys[0])) == 401, "the key of the other issuer"
            assert f"/realms/b{DISCOVERY}" in other.seen


# --- the gate ---


async def test_a_gate_asks_once_for_a_token_until_a_key_is_removed(issuer):
    second = SigningKey("k2", number=1)
    async with running(issuer, refresh_interval="1h") as extension:
        ours = gate(extension)
        headers = {"authorization": f"Bearer {issuer.token()}", "x": "y"}

        def enter():
            return ours.enter_call(headers, "10.0.0.1", lambda: None, "Export")

        first = enter()
        assert {"x": "y", f"{ATTRIBUTE_PREFIX}claims.iss": issuer.url}.items() <= first.metadata.items()
        assert "authorization" not in first.metadata
        assert enter().client is first.client
        version = extension.version
        issuer.keys.append(second)
        extension.refresh()
        await until(lambda: extension.health().details["keys"][issuer.url] == 2)
        assert (extension.version, enter().client) == (version, first.client), "an added key changes no answer"
        issuer.keys.pop(0)
        extension.refresh()
        await until(lambda: extension.version != version)
        with pytest.raises(RetryableError):
            enter()  # the id is unknown now, so the keys are fetched once more
        await until(lambda: outcome(extension, headers["authorization"].removeprefix("Bearer ")) == 401)
        with pytest.raises(UnauthenticatedError):
            enter()


# --- plans ---

AGENT = """
extensions:
  control_store: {{url: '{tenants.url}', pepper_file: '{tenants.pepper_file}'}}
  oidc: {{issuer_url: '{issuer.url}', audience: '{audience}', tenant_claim: org, store: control_store}}
  rate_limiter:
receivers:
  otlp:
    protocols:
      http: {{endpoint: '127.0.0.1:0', auth: {{authenticator: oidc}}, middlewares: [{{id: rate_limiter}}]}}
exporters: {{debug: }}
service:
  extensions: [control_store, oidc, rate_limiter]
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


def test_the_plan_of_a_tenant_limits_its_tokens(issuer, tmp_path):
    with Tenants(f"sqlite:///{tmp_path}/control.db", tmp_path / "pepper") as tenants:
        tenants.plan("tiny", requests_per_second=0.001, request_burst=2)
        tenants.create("shop", "tiny")
        config = AGENT.format(tenants=tenants, issuer=issuer, audience=AUDIENCE)
        with Agent(config, tmp_path) as agent:
            send = HttpSender(agent.port())

            def ask(org):
                return send(b"", {"Authorization": f"Bearer {issuer.token(org=org)}"})

            assert eventually(lambda: ask("unknown"), lambda status: status == 200) == 200
            assert [ask("shop") for _ in range(4)] == [200, 200, 429, 429]
            assert [ask("unknown") for _ in range(4)] == [200] * 4
            tenants.suspend("shop")
            assert eventually(lambda: ask("shop"), lambda status: status == 403) == 403
            send.close()


# --- fetching ---


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


# --- the file ---


async def test_the_keys_of_a_file_are_used_without_a_fetch(issuer, tmp_path, monkeypatch):
    monkeypatch.setattr(watched_file, "CHECK", 0.05)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [issuer.keys[0].jwk()]}))
    async with running(issuer, public_keys_file=str(file)) as extension:
        assert outcome(extension, issuer.token()) == 200
        assert outcome(extension, issuer.token(SigningKey("k2", number=1))) == 401
        file.write_text("{")
        await until(lambda: not extension.health().healthy)
        assert outcome(extension, issuer.token()) == 200
        file.write_text(json.dumps({"keys": [SigningKey("k2", number=1).jwk()]}))
        await until(lambda: outcome(extension, issuer.token()) == 401)
        assert outcome(extension, issuer.token(SigningKey("k2", number=1))) == 200
        assert issuer.seen == []
    file.write_text("[]")
    with pytest.raises(StartError, match=r"extensions/oidc: .*keys\.json: is not a JWK set"):
        async with running(issuer, public_keys_file=str(file)):
            pass


async def test_a_missing_package_is_reported_with_the_command_that_installs_it(issuer, monkeypatch):
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(StartError, match=r"jwt is not installed: install it with `pip install 'otelwp-agent\[oidc\]'`"):
        async with running(issuer):
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


# --- the configuration ---

RIGHT = {"issuer_url": "https://login.example", "audience": "a"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "`issuer_url` is missing"),
        ({"audience": "a"}, "`issuer_url` is missing"),
        ({"issuer_url": "https://login.example"}, "`audience` is missing"),
        ({"providers": [{"issuer_url": "https://login.example"}]}, "`audience` is missing"),
        ({"providers": [RIGHT], "tenant_claim": "t"}, "`tenant_claim` has no effect beside `providers`"),
        ({"providers": [RIGHT], **RIGHT}, "the issuer https://login.example is given twice"),
        ({**RIGHT, "issuer_url": "http://login.example"}, "is not encrypted"),
        ({**RIGHT, "issuer_url": "http://127.0.0.1.evil.example"}, "is not encrypted"),
        ({**RIGHT, "issuer_url": "login.example"}, "is not a URL"),
        ({**RIGHT, "issuer_url": "unix:///x"}, "is not a URL"),
        ({**RIGHT, "issuer_url": "ftp://login.example"}, "unknown scheme"),
        ({**RIGHT, "issuer_url": "https://user:pass@login.example"}, "must not contain a user or a password"),
        ({**RIGHT, "issuer_url": "https://login.example?a=b"}, "has no query"),
        ({**RIGHT, "attribute": "a b"}, "is not a header name"),
        ({**RIGHT, "username_claim": ""}, "at least 1 character"),
        ({**RIGHT, "clock_skew": "10m"}, "less than or equal to 300"),
        ({**RIGHT, "keys_max_age": "10s"}, "keys_max_age must be at least refresh_interval (1m)"),
        ({**RIGHT, "public_keys_file": "/a", "issuer_ca_path": "/b"}, "`issuer_ca_path` has no effect"),
    ],
)
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8080/a", "http://127.0.0.1", "http://[::1]:80", "https://a.example/"]
)
def test_issuers_on_this_host_need_no_tls(url):
    assert Config.model_validate({**RIGHT, "issuer_url": url}).issuer_url == url
