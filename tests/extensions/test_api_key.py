import math
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.config.references import ControlStoreRef
from otelwp_agent.control import api_keys
from otelwp_agent.control.api_keys import Hasher, Scope
from otelwp_agent.control.directory import (
    Directory,
    PlanEntry,
    TenantDirectory,
    TenantEntry,
    pack_key,
    scope_bits,
)
from otelwp_agent.control.last_used import EVERY
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.opening import StorePlace
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.control.tables import KEYS
from otelwp_agent.errors import ForbiddenError, StartError, UnauthenticatedError
from otelwp_agent.extensions.api_key import FACTORY, ApiKeyAuthenticator, Config
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import make_context
from tests.kit.agent import Agent
from tests.kit.control_access import HASHER, Access
from tests.kit.graphs import until

NOW = 1_800_000_000.0
GOLD = PlanEntry("pro", {"items_per_second": 5.0}, None)


@pytest.fixture
def access():
    return Access()


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def make(access, registry):
    def build(**settings):
        context = make_context(
            Kind.EXTENSION, "api_key", registry=registry, extensions={ComponentId("control_store"): access}
        )
        return ApiKeyAuthenticator(Config.model_validate(settings), context, now=lambda: NOW)

    return build


@pytest.fixture
def add(access):
    """Add a key of the tenant acme; return its text."""

    def add(*, active=True, expires_at=None, scopes=("ingest",)):
        new = api_keys.generate(HASHER)
        acme = TenantEntry("acme", "gold", active, {"region": "eu"})
        packed = pack_key(new.hash, expires_at, 0, scope_bits(scopes))
        access.directory.replace(Directory(1, {"gold": GOLD}, [acme], {"acme": 0}, {new.id: packed}))
        return new.text

    return add


def refusal(authenticator, headers):
    with pytest.raises(UnauthenticatedError) as caught:
        authenticator.authenticate(headers, "192.0.2.1", None)
    return str(caught.value), caught.value.challenges


def test_the_tenant_and_its_limits_come_from_the_key(make, add):
    text = add(scopes=["ingest", "usage"])
    authenticator = make()
    for headers in (
        {"x-api-key": text},
        {"authorization": f"Bearer {text}"},
        {"authorization": f"bearer  {text} "},
        {"x-api-key": text, "authorization": "Basic eDp5"},
    ):
        client = authenticator.authenticate(headers, "192.0.2.1", None)
        assert (client.tenant, client.credential) == ("acme", api_keys.parse(text))
        assert client.scopes == {"ingest", "usage"}
        assert (dict(client.attributes), dict(client.limits)) == ({"region": "eu"}, {"items_per_second": 5.0})
        assert text not in repr(client)


def test_every_invalid_key_gets_the_same_answer_and_is_counted_by_its_reason(make, add, registry):
    old = add(expires_at=NOW)
    authenticator = make()
    answers = {refusal(authenticator, {"x-api-key": old})}
    text = add()
    forged = api_keys.generate(Hasher(b"x" * 32)).text
    stolen = f"wpo_live_{api_keys.parse(text)}_{forged[26:58]}"
    import zlib

    stolen += f"{zlib.crc32(stolen.encode()):08x}"
    assert api_keys.parse(stolen) == api_keys.parse(text)
    cases = {
        "wrong": {"x-api-key": stolen},
        "unknown": {"x-api-key": forged},
        "malformed": {"x-api-key": text[:-1]},
        "missing": {},
    }
    for headers in cases.values():
        answers.add(refusal(authenticator, headers))
    for headers in (
        {"x-api-key": ""},
        {"authorization": text},
        {"authorization": f"Basic {text}"},
        {"authorization": "Bearer"},
        {"x-api-key": "é" * 66, "authorization": f"Bearer {text}"},
        {"x-api-key": "x" * 100_000},
    ):
        answers.add(refusal(authenticator, headers))
    assert answers == {("a valid credential is needed", ("Bearer", 'ApiKey header="x-api-key"'))}
    counts = {"expired": 1, "wrong": 1, "unknown": 1, "malformed": 3, "missing": 5, "suspended": 0}
    for reason, count in counts.items():
        assert registry.value("otelwp_api_key_refusals", reason=reason) == count


def test_a_suspended_tenant_and_a_missing_scope_are_forbidden(make, add, registry, access):
    authenticator = make()
    with pytest.raises(ForbiddenError, match="this tenant is suspended"):
        authenticator.authenticate({"x-api-key": add(active=False)}, "", None)
    with pytest.raises(ForbiddenError, match="does not have the scope `ingest`"):
        authenticator.authenticate({"x-api-key": add(scopes=["usage"])}, "", None)
    assert make(scope="usage").authenticate({"x-api-key": add(scopes=["usage"])}, "", None).tenant == "acme"
    assert registry.value("otelwp_api_key_refusals", reason="suspended") == 1
    assert registry.value("otelwp_api_key_refusals", reason="scope") == 1


def test_an_answer_holds_until_a_change_or_a_minute_or_the_expiry(make, add, access):
    authenticator = make()
    text = add()
    version = authenticator.version
    assert authenticator.authenticate({"x-api-key": text}, "", None).expires_at == NOW + EVERY
    soon = add(expires_at=NOW + 5)
    assert authenticator.version > version
    assert authenticator.authenticate({"x-api-key": soon}, "", None).expires_at == NOW + 5
    assert set(access.used.take(NOW)) == {api_keys.parse(text), api_keys.parse(soon)}


def test_another_header(make, add):
    text = add()
    authenticator = make(header="X-Tenant-Key")
    assert authenticator.secret_headers == {"x-tenant-key", "authorization"}
    assert authenticator.authenticate({"x-tenant-key": text}, "", None).tenant == "acme"
    refusal(authenticator, {"x-api-key": text})


def test_it_needs_a_control_store():
    with pytest.raises(StartError, match="`control_store` is not available"):
        FACTORY.build(Config(), make_context(Kind.EXTENSION, "api_key"))
    assert Config().store == ControlStoreRef("control_store")
    assert math.isinf(TenantDirectory(HASHER).refreshed_at * -1)


CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:0
        auth: {authenticator: api_key}
exporters: {debug: null}
extensions:
  control_store: {url: "URL"}
  api_key: null
service:
  tier: enterprise
  extensions: [api_key, control_store]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
"""


@pytest.fixture
def place(tmp_path):
    place = StorePlace(f"sqlite:///{tmp_path}/control.db", "", {})
    place.migrate()
    yield place
    place.store.close()


async def test_an_agent_follows_changes_of_the_store(tmp_path, place):
    actor = Actor("test")

    def change(operation, *arguments, **options):
        with place.store.write() as connection:
            return operation(connection, actor, *arguments, **options)

    with place.store.read() as connection:
        hasher = place.hasher(connection)
    change(tenants.create_tenant, "acme")
    key, text = change(keys.create_key, hasher, "acme")
    ended, expired = change(keys.create_key, hasher, "acme", name="b", expires=datetime.now(UTC) + timedelta(hours=1))
    with place.store.write() as connection:
        past = datetime.now(UTC) - timedelta(hours=1)
        connection.execute(update(KEYS).where(KEYS.c.id == ended.id).values(expires=past))
    _, other = change(keys.create_key, hasher, "acme", name="c", scopes=[Scope.USAGE])
    with Agent(CONFIG.replace("URL", f"sqlite:///{tmp_path}/control.db"), tmp_path) as agent:
        port = agent.port()

        def send(**headers):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/traces",
                b"{}",
                {
                    "Content-Type": "application/json",
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                },
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return response.status
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert send(X_API_Key=text) == 200
        assert send(Authorization=f"Bearer {text}") == 200
        assert [send(X_API_Key=wrong) for wrong in (expired, text[:-1], "x")] == [401, 401, 401]
        assert send() == 401
        assert send(X_API_Key=other) == 403
        assert send(X_API_Key=text, X_Customer_ID="other") == 403
        assert send(X_API_Key=text, X_Customer_ID="acme") == 200
        change(tenants.suspend_tenant, "acme")
        await until(lambda: send(X_API_Key=text) == 403)
        change(tenants.resume_tenant, "acme")
        await until(lambda: send(X_API_Key=text) == 200)
        _, new = change(keys.rotate_key, hasher, key.id)
        await until(lambda: send(X_API_Key=new) == 200)
        assert send(X_API_Key=text) == 200
        change(keys.revoke_key, key.id)
        await until(lambda: send(X_API_Key=text) == 401)
        assert send(X_API_Key=new) == 200
        assert agent.stop() == 0
        assert text[26:] not in agent.output
    with place.store.read() as connection:
        assert keys.get_key(connection, key.id).last_used is not None
