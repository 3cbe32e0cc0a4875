import asyncio
import json

import pytest
import structlog
from aiohttp import ClientSession, UnixConnector

from otelwp_agent.admin.models import ApiModel
from otelwp_agent.admin.operation import ApiOperation
from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import operators
from otelwp_agent.control.operations.operators import Role
from otelwp_agent.errors import StartError
from otelwp_agent.extensions.admin_api import FACTORY, Config
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import make_context
from tests.kit.certificates import Authority


class Pong(ApiModel):
    """An answer."""

    pong: str


def ping(path="/api/v1/ping", pong="a"):
    return ApiOperation("GET", path, "ping", "Ping", lambda connection, call: {"pong": pong}, answer=Pong)


@pytest.fixture
async def store(tmp_path):
    config = CONTROL_STORE.config(url=f"sqlite:///{tmp_path}/control.db", create=True)
    store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
    await store.start()
    yield store
    await store.shutdown()


@pytest.fixture
async def token(store):
    new = await store.store.write(
        lambda connection: operators.add_operator(
            connection, Actor("test"), store.directory.hasher, "alice", Role.ADMIN
        )
    )
    return new.token


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def build(store, registry):
    def build(**settings):
        context = make_context(
            Kind.EXTENSION,
            "admin_api",
            registry=registry,
            log=structlog.get_logger(),
            extensions={ComponentId("control_store"): store},
        )
        return FACTORY.build(Config(**{"endpoint": "127.0.0.1:0", **settings}), context)

    return build


@pytest.fixture
async def api(build):
    api = build()
    await api.start()
    yield api
    await api.shutdown()


async def get(api, path, token=None, **settings):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        ClientSession() as session,
        session.get(api.endpoints()["admin"] + path, headers=headers, **settings) as got,
    ):
        return got.status, json.loads(await got.read())


async def test_it_answers_and_counts(api, token, registry):
    assert (await get(api, "/api/v1/me", token))[1]["name"] == "operator:alice"
    assert (await get(api, "/api/v1/me"))[0] == 401
    assert (await get(api, "/api/v1/nothing", token))[0] == 404
    text = "".join(registry.expose())
    assert 'otelwp_admin_api_requests{extension="admin_api",status="2xx"} 1\n' in text
    assert 'otelwp_admin_api_requests{extension="admin_api",status="4xx"} 2\n' in text
    assert 'otelwp_admin_api_authentication_failures{extension="admin_api"} 1\n' in text


async def test_other_extensions_mount_operations_while_it_runs(api, token):
    api.mount("fleet", [ping()])
    assert await get(api, "/api/v1/ping", token) == (200, {"pong": "a"})
    api.mount("fleet", [ping(pong="b")])
    assert await get(api, "/api/v1/ping", token) == (200, {"pong": "b"})
    assert "/api/v1/ping" in (await get(api, "/openapi.json"))[1]["paths"]
    with pytest.raises(ValueError, match="declared twice"):
        api.mount("other", [ping()])
    api.unmount("fleet")
    assert (await get(api, "/api/v1/ping", token))[0] == 404


async def test_an_address_is_banned_after_failures(build, token):
    api = build(ban={"failures": 2})
    await api.start()
    assert [(await get(api, "/api/v1/me"))[0] for _ in range(3)] == [401, 401, 429]
    assert (await get(api, "/api/v1/me", token))[0] == 429
    await api.shutdown()


async def test_tls_and_a_unix_socket(build, token, tmp_path):
    pair = Authority(tmp_path).sign()
    api = build(
        tls={"cert_file": pair.cert_file, "key_file": pair.key_file},
        additional_endpoints=[f"unix://{tmp_path}/admin.sock"],
    )
    await api.start()
    assert api.endpoints()["admin"].startswith("https://")
    assert (await get(api, "/api/v1/me", token, ssl=False))[0] == 200
    api.refresh()
    assert (await get(api, "/api/v1/me", token, ssl=False))[0] == 200
    await api.shutdown()
    plain = build(endpoint=f"unix://{tmp_path}/plain.sock")
    await plain.start()
    connector = UnixConnector(f"{tmp_path}/plain.sock")
    async with ClientSession(connector=connector) as session, session.get("http://any.name/openapi.json") as got:
        assert got.status == 200
    await plain.shutdown()


async def test_a_successor_takes_the_port(build, token):
    old = build(endpoint="127.0.0.1:0")
    await old.start()
    endpoint = f"127.0.0.1:{old.port}"
    await old.shutdown()
    first, second = build(endpoint=endpoint), build(endpoint=endpoint)
    await first.start()
    await second.start()
    await first.shutdown()
    assert (await get(second, "/api/v1/me", token))[0] == 200
    await second.shutdown()


async def test_a_port_in_use_says_what_to_do(api, build):
    taken = build(endpoint=f"127.0.0.1:{api.port}")
    foreign = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = foreign.sockets[0].getsockname()[1]
    with pytest.raises(StartError, match="in use by another process"):
        await build(endpoint=f"127.0.0.1:{port}").start()
    foreign.close()
    await taken.shutdown()
    await taken.shutdown()


def test_missing_packages_are_named(build, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "otelwp_agent.admin.server", None)
    with pytest.raises(StartError, match=r"otelwp-agent\[control\]"):
        build()
