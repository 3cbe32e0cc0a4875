import json
import sys

import pytest
from pydantic import ValidationError

from otelwp_agent.errors import ForbiddenError, RetryableError, StartError, UnauthenticatedError
from otelwp_agent.extensions.oidc import Config
from otelwp_agent.transport import watched_file
from otelwp_agent.transport.authentication import ATTRIBUTE_PREFIX
from tests.interop.process import eventually
from tests.kit.agent import Agent
from tests.kit.gates import gate
from tests.kit.graphs import until
from tests.kit.load import HttpSender
from tests.kit.oidc import AUDIENCE, DISCOVERY, Issuer, SigningKey, client, outcome, refusals, running
from tests.kit.tenants import Tenants

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
