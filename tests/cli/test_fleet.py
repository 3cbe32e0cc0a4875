"""`fleet`: installations and versions with commands."""

import pytest

from otelwp_agent.codecs.opamp import opamp_pb2 as pb
from otelwp_agent.codecs.opamp.reports import parse_report
from otelwp_agent.control.fleet.agents import TenantReport, record_reports
from otelwp_agent.control.fleet.events import PluginEvent, record_events
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import tenants
from otelwp_agent.control.store import Store
from tests.kit.fleet import NOW, beat, sent
from tests.kit.opamp import health, message


@pytest.fixture
def plugin(command, store_url):
    """Return the id of an installation of acme, which has sent a heartbeat and an event."""
    store = Store(store_url)
    with store.write() as connection:
        tenants.create_tenant(connection, Actor("test"), "acme")
        (found,) = sent(connection, beat(php_version="8.1.0", server_info={"memory_limit": "256M"}))
        event = PluginEvent("acme", "woocommerce", "production", "", "payment_failed", "error")
        record_events(connection, [event], NOW)
    store.close()
    return found.installation


def test_installations_are_listed_and_shown(command, plugin):
    assert (
        command("fleet", "versions", "add", "woocommerce", "1.4.0")[1] == "registered version 1.4.0 for woocommerce\n"
    )
    _, out, _ = command("fleet", "list")
    assert out.splitlines()[1].split()[:7] == [plugin, "acme", "woocommerce", "1.3.5", "1.4.0", "active", "0"]
    assert command("fleet", "list", "--cms", "magento", "--json") == []
    assert [each["id"] for each in command("fleet", "list", "--status", "active", "--tenant", "acme", "--json")] == [
        plugin
    ]
    _, out, _ = command("fleet", "show", plugin)
    lines = [line.split() for line in out.splitlines()]
    assert ["php_version", "8.1.0"] in lines
    assert ["server_info.memory_limit", "256M"] in lines
    assert lines[-1][1:] == ["error", "payment_failed"]
    shown = command("fleet", "show", plugin, "--json")
    assert (shown["recent_events"][0]["event_type"], shown["toggles"]) == ("payment_failed", [])


def test_an_agent_that_reports_over_opamp(command, plugin, store_url):
    first = message(attributes={"service.name": "shop"}, health=health("degraded", otlp=health("queue is full")))
    first.remote_config_status.last_remote_config_hash = b"\xab\xcd"
    first.remote_config_status.status = pb.FAILED
    first.remote_config_status.error_message = "no such exporter"
    store = Store(store_url)
    with store.write() as connection:
        report = TenantReport("acme", parse_report(first.SerializeToString()), {})
        (found,) = record_reports(connection, [report], NOW)
    store.close()
    lines = [" ".join(line.split()) for line in command("fleet", "show", found.installation)[1].splitlines()]
    assert "agent unhealthy: degraded" in lines
    assert "agent.remote_config failed abcd: no such exporter" in lines
    assert "agent.unhealthy.otlp queue is full" in lines
    assert command("fleet", "show", found.installation, "--json")["agent"]["health"]["healthy"] is False
    assert command("fleet", "show", plugin, "--json")["agent"] is None


def test_toggles(command, plugin):
    status, out, _ = command("fleet", "toggle", plugin, "enable_debug", "on", "--expires", "7d", "--reason", "Ticket 7")
    assert (status, out.startswith("enable_debug on, until "), "(Ticket 7)" in out) == (0, True, True)
    block = ("fleet", "toggle", plugin, "block_plugin", "on", "--reason", "CVE")
    assert "pending: a second operator must set it too" in command(*block)[1]
    assert command(*block, "--yes", "--json")["state"] == "set"
    assert command("fleet", "list", "--status", "blocked", "--json")[0]["id"] == plugin
    assert "toggle block_plugin on" in command("fleet", "show", plugin)[1]
    assert command("fleet", "toggle", plugin, "block_plugin", "off", "--json")["toggle_value"] is False


def test_statistics_and_versions(command, plugin):
    command("fleet", "versions", "add", "woocommerce", "1.4.0", "--critical", "--notes", "Security")
    command("fleet", "versions", "add", "woocommerce", "2.0.0-beta.1", "--not-latest")
    _, out, _ = command("fleet", "versions", "list", "--cms", "woocommerce")
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["woocommerce", "2.0.0-beta.1", "-", "-"],
        ["woocommerce", "1.4.0", "yes", "yes"],
    ]
    assert command("fleet", "versions", "list", "--json")[1]["notes"] == "Security"
    _, out, _ = command("fleet", "stats")
    assert ["active_count", "1"] in [line.split() for line in out.splitlines()]
    found = command("fleet", "stats", "--json")
    assert (found["cms_breakdown"], found["alerts"]) == ([{"cms": "woocommerce", "count": 1}], [])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("show", "none"), "there is no installation 'none'"),
        (("toggle", "none", "rate_limit", "on"), "there is no installation 'none'"),
        (("versions", "add", "woocommerce", "newest"), "is not a version"),
        (("versions", "add", "Woo", "1.0"), "is not a valid CMS"),
    ],
)
def test_what_is_refused(command, arguments, wanted):
    status, _, err = command("fleet", *arguments)
    assert (status, wanted in err) == (1, True)
