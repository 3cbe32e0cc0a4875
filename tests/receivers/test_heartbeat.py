"""Heartbeats and events over HTTP: what is stored and forwarded, and what is refused."""

import asyncio
import json
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from otelwp_agent.codecs.compact_jws import read_jws
from otelwp_agent.codecs.ed25519_jws import is_signed_by
from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.control.errors import StoreLockedError
from otelwp_agent.control.fleet.events import recent_events
from otelwp_agent.control.fleet.installations import get_installation, list_installations
from otelwp_agent.control.fleet.notifications import list_notices, notify_upgrade
from otelwp_agent.control.fleet.tables import EVENTS, INSTALLATIONS
from otelwp_agent.control.fleet.toggles import KEYS, set_toggle
from otelwp_agent.control.fleet.versions import register_version
from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.heartbeat import Config
from otelwp_agent.tier import Tier
from tests.kit.fleet import EVENT, HEARTBEAT, NOW
from tests.kit.heartbeat import MERCHANT, SETUP, HeartbeatAgent
from tests.kit.jaeger import attributes_of


@pytest.fixture
async def agent(tmp_path):
    async with HeartbeatAgent(tmp_path) as agent:
        yield agent


async def rows(agent):
    """Return the numbers of installations and events in the store."""
    return await agent.read(
        lambda connection: tuple(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (INSTALLATIONS, EVENTS)
        )
    )


@pytest.mark.parametrize("prefix", ["/api/v1/plugins", "/v1/plugins"])
async def test_a_heartbeat_and_its_reply(agent, prefix):
    status, headers, reply = await agent.post("heartbeat", HEARTBEAT | {"merchant_id": MERCHANT}, prefix=prefix)
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert 3240 <= reply.pop("next_heartbeat_seconds") <= 3960
    id_ = reply.pop("installation_id")
    assert reply == {"status": "ok", "toggles": dict.fromkeys(KEYS, False), "notifications": []}
    assert (await agent.post("heartbeat", HEARTBEAT, prefix=prefix))[2]["installation_id"] == id_
    found = await agent.read(lambda connection: get_installation(connection, id_))
    assert (found.tenant, found.cms_version, found.server_info["memory_limit"]) == ("acme", "6.4", "256M")
    batch = agent.metrics.batches[0]
    assert (batch.items, batch.origin.tenant, batch.origin.receiver) == (2, "acme", "heartbeat")
    (resource,) = json.loads(encode(Signal.METRICS, batch.body))["resourceMetrics"]
    attributes = attributes_of(resource["resource"])
    assert (attributes["service.instance.id"], attributes["service.namespace"]) == (id_, "acme")
    assert "authorization" not in batch.origin.headers
    assert agent.registry.value("otelwp_heartbeat_accepted", kind="heartbeat") == 2
    assert "plugin_heartbeat_latency_seconds_count" in "".join(agent.registry.expose())


async def test_toggles_and_notices_are_in_the_reply(agent):
    id_ = (await agent.post("heartbeat", HEARTBEAT))[2]["installation_id"]

    def change(connection):
        register_version(connection, SETUP, "woocommerce", "1.4.0", notes="Faster")
        set_toggle(connection, SETUP, id_, "block_plugin", value=True, reason="CVE", confirmed=True)
        return notify_upgrade(connection, SETUP, id_)

    notice = await agent.write(change)
    reply = (await agent.post("heartbeat", HEARTBEAT))[2]
    assert reply["toggles"] == {**dict.fromkeys(KEYS, False), "block_plugin": True}
    assert reply["notifications"] == [
        {"id": notice.id, "latest_version": "1.4.0", "priority": "normal", "notes": "Faster"}
    ]
    assert (await agent.post("heartbeat", HEARTBEAT | {"acknowledged": [notice.id]}))[2]["notifications"] == []
    (kept,) = await agent.read(lambda connection: list_notices(connection, id_))
    assert kept.acknowledged_at == NOW


async def test_an_event_is_redacted_stored_and_forwarded(agent):
    id_ = (await agent.post("heartbeat", HEARTBEAT))[2]["installation_id"]
    event = EVENT | {
        "event_data": EVENT["event_data"] | {"card": "4111 1111 1111 1111", "note": "ann@shop.example", "token": "x"},
        "stack_trace": "#0 pay(4111111111111111)\npassword=hunter22",
        "sent_at": NOW.isoformat(),
    }
    assert (await agent.post("event", event))[::2] == (200, {"status": "ok"})
    (stored,) = await agent.read(lambda connection: recent_events(connection, id_))
    assert stored["event_data"] == EVENT["event_data"] | {"card": "REDACTED", "note": "[email]", "token": "REDACTED"}
    assert stored["stack_trace"] == "#0 pay([card])\npassword=REDACTED"
    (batch,) = agent.logs.batches
    (resource,) = json.loads(encode(Signal.LOGS, batch.body))["resourceLogs"]
    assert attributes_of(resource["resource"])["service.instance.id"] == id_
    (record,) = resource["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == "plugin.payment_failed"
    assert attributes_of(record)["exception.stacktrace"] == stored["stack_trace"]
    assert b"4111" not in batch.body


@pytest.mark.parametrize(
    ("changed", "status", "reason", "pointer"),
    [
        ({"errors_last_hour": "many"}, 422, "invalid", "#/errors_last_hour"),
        ({"plugin_version": "newest"}, 422, "invalid", "#/plugin_version"),
        ({"cms": "geocities"}, 422, "unknown_cms", "#/cms"),
        ({"merchant_id": "globex"}, 403, "merchant", "#/merchant_id"),
        ({"sent_at": (NOW + timedelta(minutes=6)).isoformat()}, 422, "clock_skew", "#/sent_at"),
        ({"sent_at": "0001-01-01T00:00:00+14:00"}, 422, "clock_skew", "#/sent_at"),
    ],
)
async def test_heartbeats_that_are_refused(agent, changed, status, reason, pointer):
    answer = await agent.post("heartbeat", HEARTBEAT | changed)
    assert (answer[0], answer[1]["content-type"]) == (status, "application/problem+json")
    assert answer[2]["errors"][0]["pointer"] == pointer
    assert agent.refused(reason) == 1
    assert await rows(agent) == (0, 0)
    assert agent.metrics.batches == []


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "malformed"),
        (b"[]", 422, "invalid"),
        (b'{"merchant_id": "\xff"}', 400, "malformed"),
        (b"[" * 100_000, 400, "malformed"),
        (b" " * 200_000, 413, "too_large"),
    ],
)
async def test_bodies_that_are_no_heartbeats(agent, body, status, reason):
    answer = await agent.post("heartbeat", body)
    assert (answer[0], answer[2]["status"]) == (status, status)
    assert agent.refused(reason) == 1
    assert await rows(agent) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({"stack_trace": "x" * 20_000}, 422, "invalid"),
        ({"event_type": "party"}, 422, "invalid"),
        ({"environment": "staging"}, 404, "unknown_installation"),
        ({"installation_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12}, 404, "unknown_installation"),
        ({"merchant_id": "globex"}, 403, "merchant"),
    ],
)
async def test_events_that_are_refused(agent, changed, status, reason):
    await agent.post("heartbeat", HEARTBEAT)
    answer = await agent.post("event", EVENT | changed)
    assert (answer[0], answer[2]["status"]) == (status, status)
    assert agent.refused(reason) == 1
    assert await rows(agent) == (1, 0)
    assert agent.logs.batches == []


async def test_the_installation_of_another_tenant_is_refused(agent):
    theirs = await agent.post("heartbeat", HEARTBEAT | {"merchant_id": "globex"}, by="globex")
    answer = await agent.post("event", EVENT | {"installation_id": theirs[2]["installation_id"]})
    assert (answer[0], agent.refused("foreign"), await rows(agent)) == (403, 1, (1, 0))


async def test_replays_are_refused(agent):
    beat = HEARTBEAT | {"sent_at": NOW.isoformat()}
    bodies = (beat, beat | {"errors_last_hour": 9})
    assert [(await agent.post("heartbeat", body))[0] for body in bodies] == [200, 409]
    event = EVENT | {"event_id": "e-1"}
    assert [(await agent.post("event", event))[0] for _ in range(2)] == [200, 409]
    assert agent.refused("replayed") == 2
    assert await rows(agent) == (1, 1)
    assert (len(agent.metrics.batches), len(agent.logs.batches)) == (1, 1)


async def test_a_heartbeat_can_be_repeated_after_its_answer_was_lost(agent):
    beat = HEARTBEAT | {"sent_at": NOW.isoformat()}
    first, again = [await agent.post("heartbeat", beat) for _ in range(2)]
    assert (first[0], again[0]) == (200, 200)
    for member in ("status", "installation_id", "toggles", "notifications"):
        assert again[2][member] == first[2][member]
    assert agent.refused("replayed") == 0
    assert await rows(agent) == (1, 0)
    assert len(agent.metrics.batches) == 1, "its telemetry is forwarded once"


async def test_the_key_must_be_valid_and_have_the_scope(agent):
    for by, status in (("", 401), ("ingest", 403)):
        answer = await agent.post("heartbeat", HEARTBEAT, by=by)
        assert (answer[0], answer[2]["status"]) == (status, status)
    assert await rows(agent) == (0, 0)


async def test_the_scope_is_checked_whatever_the_authenticator_accepts(tmp_path):
    async with HeartbeatAgent(tmp_path, key_scope="ingest") as agent:
        assert (await agent.post("heartbeat", HEARTBEAT, by="ingest"))[0] == 403
        assert agent.refused("scope") == 1


async def test_many_heartbeats_at_once_share_transactions(agent, monkeypatch):
    groups = []
    real = agent.receiver._beats._record
    monkeypatch.setattr(
        agent.receiver._beats, "_record", lambda connection, beats: groups.append(len(beats)) or real(connection, beats)
    )
    posts = [agent.post("heartbeat", HEARTBEAT | {"site_id": str(number)}) for number in range(30)]
    assert {answer[0] for answer in await asyncio.gather(*posts)} == {200}
    assert sum(groups) == 30
    assert len(await agent.read(list_installations)) == 30


async def test_a_store_that_is_away(agent, monkeypatch):
    async def write(function):
        raise StoreLockedError("locked: /var/lib/secret/path")

    monkeypatch.setattr(agent.store.store, "write", write)
    for path, body in (("heartbeat", HEARTBEAT), ("event", EVENT)):
        status, headers, answer = await agent.post(path, body)
        assert (status, headers["retry-after"], "secret" in answer["detail"]) == (503, "5", False)
    assert agent.refused("store") == 2
    assert agent.metrics.batches == []


async def test_full_pipelines_lose_telemetry_but_no_heartbeat(agent):
    agent.metrics.error = agent.logs.error = Overloaded("full")
    assert (await agent.post("heartbeat", HEARTBEAT))[0] == 200
    assert (await agent.post("event", EVENT))[0] == 200
    assert await rows(agent) == (1, 1)
    lost = {
        signal: agent.registry.value("otelwp_heartbeat_telemetry_lost", signal=signal) for signal in ("metrics", "logs")
    }
    assert lost == {"metrics": 2, "logs": 1}


async def test_a_receiver_in_no_pipeline_of_a_signal(agent):
    agent.receiver.next = {}
    assert (await agent.post("heartbeat", HEARTBEAT))[0] == 200
    assert (await agent.post("event", EVENT))[0] == 200


def test_authentication_is_required():
    (((), message),) = Config().contradictions()
    assert "api_key/heartbeat" in message
    assert not [*Config(auth={"authenticator": "api_key"}).contradictions()]


async def test_toggles_are_signed_for_the_installation(tmp_path):
    key = generate_key()
    file = tmp_path / "toggles.pem"
    file.write_bytes(private_pem(key))
    async with HeartbeatAgent(tmp_path, signing_key_file=str(file)) as agent:
        reply = (await agent.post("heartbeat", HEARTBEAT))[2]
        assert is_signed_by(reply["signed_toggles"], public_text(key))
        claims = read_jws(reply["signed_toggles"], max_length=4096).claims
        now = int(NOW.timestamp())
        assert claims == {
            "aud": "plugin",
            "sub": reply["installation_id"],
            "iat": now,
            "exp": now + 3 * 3600,
            "toggles": reply["toggles"],
        }
        other = generate_key()
        file.write_bytes(private_pem(other))
        agent.receiver.refresh()
        reply = (await agent.post("heartbeat", HEARTBEAT))[2]
        assert is_signed_by(reply["signed_toggles"], public_text(other))
        file.write_text("no key")
        agent.receiver.refresh()
        assert not agent.receiver.health().healthy
        assert (await agent.post("heartbeat", HEARTBEAT))[0] == 200, "the key before is used"


async def test_without_a_valid_key_it_does_not_start(tmp_path):
    file = tmp_path / "toggles.pem"
    file.write_text("no key")
    agent = HeartbeatAgent(tmp_path, signing_key_file=str(file))
    with pytest.raises(StartError, match="Ed25519"):
        await agent.__aenter__()
    await agent.store.shutdown()


def test_signed_toggles_must_last_until_the_next_heartbeat():
    settings = {"auth": {"authenticator": "api_key"}, "interval": "6h"}
    ((path, message),) = Config(**settings).contradictions()
    assert (path, "interval" in message) == (("toggles_lifetime",), True)


async def test_a_plan_below_enterprise_is_refused(agent):
    agent.receiver.context.tenant_tiers.add({"acme": Tier.PRO}.get)
    status, _, problem = await agent.post("heartbeat", HEARTBEAT)
    assert (status, await rows(agent), agent.refused("plan_tier")) == (403, (0, 0), 1)
    assert "heartbeats and events need a plan of tier `enterprise`" in problem["detail"]
