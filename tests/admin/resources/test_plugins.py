"""`/plugins` of the admin API: installations that heartbeats have made."""

from datetime import UTC, datetime, timedelta

import pytest

from otelwp_agent.codecs.opamp.reports import parse_report
from otelwp_agent.control.fleet.agents import TenantReport, record_reports
from otelwp_agent.control.fleet.events import PluginEvent, record_events
from tests.kit.fleet import beat, sent
from tests.kit.opamp import health, message


@pytest.fixture
async def plugins(api):
    """Return the ids of two installations of acme, the first with an error, and one of globex."""
    now = datetime.now(UTC)

    def prepare(connection):
        beats = [beat(), beat(cms="magento"), beat("globex", cms="magento")]
        found = [each.installation for each in sent(connection, *beats, now=now)]
        event = PluginEvent(
            "acme", "woocommerce", "production", "", "payment_failed", "error", {"order_id": "12345"}, "#0"
        )
        record_events(connection, [event], now - timedelta(minutes=1))
        return found

    return await api.store.store.write(prepare)


async def test_installations_are_listed_as_an_array_with_pages(api, plugins):
    path, found = "/plugins/list?limit=2", []
    while path:
        answer = await api.call("GET", path, by="viewer")
        found += answer.json
        link = answer.headers.get("Link")
        path = link and link.partition(">")[0].removeprefix("</api/v1")
    assert [each["id"] for each in found] == sorted(plugins)
    ours = next(each for each in found if each["id"] == plugins[0])
    assert {name: ours[name] for name in ("merchant_id", "cms", "status", "errors_24h", "latest_version")} == {
        "merchant_id": "acme",
        "cms": "woocommerce",
        "status": "active",
        "errors_24h": 1,
        "latest_version": None,
    }
    filtered = (await api.call("GET", "/plugins/list?status=active&cms=magento&merchant_id=acme")).json
    assert [each["id"] for each in filtered] == [plugins[1]]
    assert (await api.call("GET", "/plugins/list?status=outdated")).json == []
    assert (await api.call("GET", "/plugins/list?status=asleep")).status == 422


async def test_versions_make_installations_outdated(api, plugins):
    created = await api.call("POST", "/plugins/versions", {"cms": "magento", "version": "2.0.0", "notes": "New"})
    assert (created.status, created.json["is_latest"]) == (201, True)
    assert (await api.call("POST", "/plugins/versions", {"cms": "magento", "version": "2.0.0"})).status == 409
    assert (await api.call("POST", "/plugins/versions", {"cms": "magento", "version": "two"})).status == 422
    assert (
        await api.call("POST", "/plugins/versions", {"cms": "magento", "version": "3", "notes": "\n"})
    ).status == 422
    assert (await api.call("GET", "/plugins/versions?cms=magento")).json == [created.json]
    await api.store.store.write(lambda connection: sent(connection, beat("globex", cms="magento")))
    assert (await api.call("GET", f"/plugins/{plugins[2]}")).json["status"] == "outdated"
    overview = (await api.call("GET", "/plugins/stats/overview", by="viewer")).json
    assert (overview["active_count"], overview["outdated_count"]) == (2, 1)
    assert overview["cms_breakdown"] == [{"cms": "magento", "count": 2}, {"cms": "woocommerce", "count": 1}]
    (alert,) = (await api.call("GET", "/plugins/alerts")).json
    assert (alert["name"], alert["value"]) == ("PluginOutdatedHigh", 33.33)


async def test_the_details_of_an_installation(api, plugins):
    found = (await api.call("GET", f"/plugins/{plugins[0]}", by="viewer")).json
    (event,) = found["recent_events"]
    assert (event["event_type"], event["event_data"], event["stack_trace"]) == (
        "payment_failed",
        {"order_id": "12345"},
        "#0",
    )
    assert (found["active_toggles"], found["notifications"], found["errors_24h"]) == ([], [], 1)
    assert found["agent"] is None
    assert (await api.call("GET", f"/plugins/{'0' * 8}-0000-0000-0000-{'0' * 12}")).status == 404


async def test_an_agent_that_reports_over_opamp(api):
    first = message(attributes={"service.name": "shop"}, health=health("queue is full"))
    report = TenantReport("acme", parse_report(first.SerializeToString()), {})
    (found,) = await api.store.store.write(lambda connection: record_reports(connection, [report], datetime.now(UTC)))
    agent = (await api.call("GET", f"/plugins/{found.installation}")).json["agent"]
    assert (agent["attributes"], agent["health"]["last_error"]) == ({"service.name": "shop"}, "queue is full")
    assert agent["remote_config"] == {"state": "unset", "hash": "", "message": ""}


async def test_a_toggle_is_set_and_audited(api, plugins):
    end = datetime.now(UTC) + timedelta(days=7)
    body = {
        "toggle_key": "enable_debug",
        "toggle_value": True,
        "reason": "Ticket 7",
        "expires_at": end.isoformat(),
        "updated_by": "ops-agent-uuid",
    }
    answer = await api.call("POST", f"/plugins/{plugins[0]}/toggle", body, by="operator", x_request_id="r")
    assert answer.status == 200
    assert {
        name: answer.json[name] for name in ("plugin_id", "toggle_key", "toggle_value", "reason", "expires_at")
    } == {
        "plugin_id": plugins[0],
        "toggle_key": "enable_debug",
        "toggle_value": True,
        "reason": "Ticket 7",
        "expires_at": end.isoformat(),
    }
    assert answer.json["updated_by"] == "operator:the-operator"
    assert (await api.call("GET", f"/plugins/{plugins[0]}")).json["active_toggles"] == [answer.json]
    (event,) = await api.log()
    assert (event.action, event.target, event.actor, event.request_id) == (
        "toggle.set",
        plugins[0],
        "operator:the-operator",
        "r",
    )


async def test_a_plugin_is_blocked_by_two_operators(api, plugins):
    path, body = f"/plugins/{plugins[0]}", {"toggle_key": "block_plugin", "toggle_value": True, "reason": "CVE"}
    assert (await api.call("POST", f"{path}/toggle", {**body, "reason": None})).status == 422
    first = await api.call("POST", f"{path}/toggle", body, by="operator")
    found = (await api.call("GET", path)).json
    assert (first.json["state"], found["status"], found["active_toggles"]) == ("pending", "active", [])
    assert found["pending_toggles"] == [first.json]
    assert (await api.call("POST", f"{path}/toggle", body, by="admin")).json["state"] == "set"
    assert (await api.call("GET", path)).json["status"] == "blocked"


@pytest.mark.parametrize(
    "changed",
    [
        {"toggle_key": "explode"},
        {"toggle_value": "true"},
        {"toggle_value": 1},
        {"expires_at": "tomorrow"},
        {"expires_at": 1900000000},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2030-01-01T00:00:00"},
        {"reason": " "},
        {"unknown": 1},
    ],
)
async def test_toggles_that_are_refused(api, plugins, changed):
    body = {"toggle_key": "rate_limit", "toggle_value": True} | changed
    assert (await api.call("POST", f"/plugins/{plugins[0]}/toggle", body)).status == 422
    assert await api.log() == []


async def test_a_notice_of_an_upgrade(api, plugins):
    path = f"/plugins/{plugins[0]}/notify-upgrade"
    assert (await api.call("POST", path, {"channel": "in-app"})).status == 409, "no version is registered"
    await api.call("POST", "/plugins/versions", {"cms": "woocommerce", "version": "2.0.0"})
    assert (await api.call("POST", path, {"channel": "pigeon"})).status == 422
    answer = await api.call("POST", path, {}, by="operator")
    assert (answer.json["status"], answer.json["message"]) == ("ok", "Notification sent")
    assert (answer.json["notification"]["to_version"], answer.json["notification"]["priority"]) == ("2.0.0", "high")
    assert (await api.call("GET", f"/plugins/{plugins[0]}")).json["notifications"] == [answer.json["notification"]]
