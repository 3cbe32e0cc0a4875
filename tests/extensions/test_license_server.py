"""The licence server over HTTP: what it renews, what it refuses, and agents that it renews."""

import asyncio
import json
import subprocess
import sys
from datetime import date

import pytest
import structlog

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import licenses
from otelwp_agent.errors import StartError
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.extensions.license_server import FACTORY, FRESH, MAX_KEPT, Config
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.manager import LicenseManager
from otelwp_agent.licensing.online import LicenseServerClient, RefreshError
from otelwp_agent.licensing.signatures import private_pem, verify_license
from otelwp_agent.licensing.terms import LicenseTerms
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock, make_context
from otelwp_agent.tier import Tier
from tests.licensing.issuer import DAY, ISSUER, START, Issuer

ALICE = Actor("operator:alice")
TERMS = LicenseTerms(customer="Shop Ltd", tier="pro", expires=date(2027, 12, 31), features=("fleet",))


@pytest.fixture
async def store(tmp_path):
    config = CONTROL_STORE.config(url=f"sqlite:///{tmp_path}/control.db", create=True)
    store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
    await store.start()
    await store.store.write(lambda connection: licenses.set_license(connection, ALICE, "shop-1", TERMS))
    yield store
    await store.shutdown()


class Server:
    """A running licence server, its clock and its metrics."""

    def __init__(self, store, folder, **settings):
        self.key_file = folder / "signing.pem"
        self.key_file.write_bytes(private_pem(ISSUER.private))
        self.clock = FakeClock()
        self.wall = FakeClock(START)
        self.registry = Registry()
        context = make_context(
            Kind.EXTENSION,
            "license_server",
            registry=self.registry,
            clock=self.clock,
            extensions={ComponentId("control_store"): store},
        )
        config = Config(**{"endpoint": "127.0.0.1:0", "signing_key_file": str(self.key_file)} | settings)
        self.extension = FACTORY.build(config, context)
        self.extension._wall = self.wall

    @property
    def url(self):
        return f"http://127.0.0.1:{self.extension.port}"

    async def get(self, license_=None, query=""):
        """Return the status and the JSON of an answer."""
        header = "" if license_ is None else f"X-License-Key: {license_}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.extension.port)
        writer.write(f"GET /validate{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(body)

    def results(self, result):
        return self.registry.value("otelwp_license_server_requests", result=result)


@pytest.fixture
async def server(store, tmp_path):
    server = Server(store, tmp_path)
    await server.extension.start()
    yield server
    await server.extension.shutdown()


async def change(store, operation, *arguments):
    await store.store.write(lambda connection: operation(connection, ALICE, "shop-1", *arguments))


async def test_a_valid_licence_gets_a_fresh_lease_for_its_request(server):
    status, body = await server.get(ISSUER.issue(), "?nonce=n-1")
    assert (status, body["valid"], body["tier"], body["features"]) == (200, True, "pro", ["fleet"])
    terms = verify_license(body["license"], ISSUER.keys)
    assert (terms.jti, terms.sub, terms.nonce, terms.iat) == ("shop-1", "Shop Ltd", "n-1", START)
    assert terms.lease == START + 30 * DAY
    assert server.results("valid") == 1


async def test_a_client_without_a_nonce_gets_the_founding_answer(server):
    status, body = await server.get(ISSUER.issue())
    assert (status, body["valid"], body["features"]) == (200, True, ["fleet"])
    assert verify_license(body["license"], ISSUER.keys).nonce is None


async def test_a_revoked_licence_is_signed_as_revoked_and_can_be_restored(server, store):
    await change(store, licenses.revoke_license, "not paid")
    status, body = await server.get(ISSUER.issue())
    assert (status, body["valid"], body["features"]) == (200, False, [])
    assert "not paid" in body["reason"]
    assert verify_license(body["license"], ISSUER.keys).revoked == "not paid"
    await change(store, licenses.restore_license)
    server.clock.now += FRESH
    assert (await server.get(ISSUER.issue()))[1]["valid"]
    assert (server.results("valid"), server.results("not_valid")) == (1, 1)


async def test_the_terms_of_the_store_replace_those_of_the_licence(server, store):
    await change(store, licenses.set_license, LicenseTerms("Shop Ltd", "enterprise", date(2030, 1, 1), lease_days=None))
    _, body = await server.get(ISSUER.issue())
    terms = verify_license(body["license"], ISSUER.keys)
    assert (terms.tier, terms.expires, terms.lease) == ("enterprise", date(2030, 1, 1), None)


async def test_an_expired_licence_is_not_valid(server):
    server.wall.now = ISSUER.terms().ends_at
    status, body = await server.get(ISSUER.issue())
    assert (status, body["valid"]) == (200, False)
    assert "expired at the end of 2027-12-31" in body["reason"]


@pytest.mark.parametrize(
    ("license_", "query", "status"),
    [
        (None, "", 401),
        ("", "", 401),
        ("x", "", 403),
        ("a.b.c", "", 403),
        (Issuer().issue(), "", 403),
        (ISSUER.issue()[:-4], "", 403),
        ("x" * 20_000, "", 403),
        (ISSUER.issue(jti="unknown"), "", 404),
        (ISSUER.issue(), "?nonce=", 400),
        (ISSUER.issue(), "?nonce=a%20b", 400),
        (ISSUER.issue(), f"?nonce={'a' * 65}", 400),
        (ISSUER.issue(), "?nonce=a&nonce=b", 400),
    ],
    ids=range(12),
)
async def test_other_requests_are_refused_without_a_signature(server, license_, query, status):
    found, body = await server.get(license_, query)
    assert found == status
    assert body["valid"] is False
    assert "license" not in body
    assert server.results("unknown" if status == 404 else "refused") == 1


async def test_terms_are_read_from_the_store_again_after_a_while(server, store):
    assert (await server.get(ISSUER.issue()))[1]["valid"]
    await change(store, licenses.revoke_license, "not paid")
    assert (await server.get(ISSUER.issue()))[1]["valid"]
    server.clock.now += FRESH
    assert not (await server.get(ISSUER.issue()))[1]["valid"]


async def test_kept_terms_are_bounded(server):
    server.extension._kept.update((str(number), (0.0, None)) for number in range(MAX_KEPT))
    await server.get(ISSUER.issue())
    assert len(server.extension._kept) == 1


async def test_while_the_store_is_away_clients_are_told_to_come_back(server, store, tmp_path):
    await store.store.run(store.store.store.close)
    (tmp_path / "control.db").unlink()
    status, body = await server.get(ISSUER.issue())
    assert (status, body["valid"]) == (503, False)
    assert server.results("unavailable") == 1


async def test_a_new_signing_key_is_used_without_a_restart_and_old_licences_with_their_public_key(store, tmp_path):
    new = Issuer()
    server = Server(store, tmp_path, public_keys=[ISSUER.public])
    await server.extension.start()
    server.key_file.write_bytes(private_pem(new.private))
    server.extension.refresh()
    _, body = await server.get(ISSUER.issue())
    assert verify_license(body["license"], new.keys).jti == "shop-1"
    server.key_file.write_text("damaged")
    server.extension.refresh()
    assert "Ed25519" in server.extension.health().message
    assert (await server.get(new.issue()))[0] == 200
    await server.extension.shutdown()


async def test_a_signing_key_that_cannot_be_used_prevents_the_start(store, tmp_path):
    server = Server(store, tmp_path)
    server.key_file.write_text("not a key")
    with pytest.raises(StartError, match="not an Ed25519 private key"):
        await server.extension.start()
    server.key_file.unlink()
    with pytest.raises(StartError, match="No such file"):
        await server.extension.start()
    await server.extension.shutdown()


# -- with an agent


async def test_an_agent_is_renewed_and_revoked_over_http(server, store, tmp_path):
    """The licence in the agent's configuration needs a renewal, so the start makes one."""
    settings = LicenseConfig(key=ISSUER.issue(lease=int(START - 20 * DAY)), url=server.url, public_keys=[ISSUER.public])
    registry = Registry()

    async def current():
        manager = LicenseManager(registry, structlog.get_logger(), required=False, wall=server.wall)
        await manager.start(settings, None, str(tmp_path / "state"))
        await manager.stop()
        return manager.current.tier, manager.current.basis

    assert await current() == (Tier.PRO, Basis.LICENSE)
    await change(store, licenses.revoke_license, "not paid")
    server.clock.now += FRESH
    server.wall.now += 40 * DAY  # the stored lease has ended
    assert await current() == (Tier.FREE, Basis.LAPSED)
    assert registry.value("otelwp_license_refreshes") == 2


async def test_the_client_reports_refusals_as_outages(server):
    client = LicenseServerClient(server.url, None, structlog.get_logger())
    with pytest.raises(RefreshError) as caught:
        await client.ask(ISSUER.issue(jti="unknown"), "n")
    assert caught.value.reason == "status"


def test_the_module_needs_no_optional_package_to_be_listed():
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from otelwp_agent.extensions.license_server import FACTORY\n"
        "print(FACTORY.type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "license_server\n"
