from datetime import timedelta

from sqlalchemy import select

from otelwp_agent.control.fleet import monitor
from otelwp_agent.control.fleet.events import PluginEvent, record_events
from otelwp_agent.control.fleet.installations import get_installation
from otelwp_agent.control.fleet.monitor import check_page, delete_health, notify_page, record_health_page
from otelwp_agent.control.fleet.notifications import list_notices
from otelwp_agent.control.fleet.tables import HEALTH
from otelwp_agent.control.fleet.toggles import set_toggle
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import NOW, beat, sent

HOUR = timedelta(hours=1)


def event(event_type="error"):
    return PluginEvent("acme", "woocommerce", "production", "", event_type, "error")


def state(fleet, id_):
    found = get_installation(fleet, id_)
    return found.status, found.error_rate


def test_status_and_error_rate_change_at_the_right_hour(fleet, actor):
    (plugin,) = sent(fleet, beat())
    id_ = plugin.installation
    record_events(fleet, [event(), *[event("payment_success")] * 39], NOW)
    assert check_page(fleet, "", NOW + HOUR) == ("", 1)
    assert state(fleet, id_) == ("active", 2.5)
    assert check_page(fleet, "", NOW + HOUR) == ("", 0), "nothing has changed"
    register_version(fleet, actor, "woocommerce", "1.4.0")
    check_page(fleet, "", NOW + 24 * HOUR)
    assert state(fleet, id_) == ("outdated", 2.5)
    check_page(fleet, "", NOW + 25 * HOUR)
    assert state(fleet, id_) == ("outdated", 0.0)
    check_page(fleet, "", NOW + 48 * HOUR)
    assert state(fleet, id_)[0] == "outdated"
    check_page(fleet, "", NOW + 49 * HOUR)
    assert state(fleet, id_)[0] == "error"
    sent(fleet, beat(plugin_version="1.4.0"), now=NOW + 50 * HOUR)
    assert state(fleet, id_)[0] == "active", "it has recovered"


def test_a_block_ends_when_it_expires(fleet, actor):
    (plugin,) = sent(fleet, beat())
    toggle = set_toggle(fleet, actor, plugin.installation, "block_plugin", value=True, reason="CVE", confirmed=True)
    end = toggle.updated + HOUR
    set_toggle(fleet, actor, plugin.installation, "block_plugin", value=True, reason="CVE", expires_at=end)
    sent(fleet, beat(), now=end - HOUR / 2)
    check_page(fleet, "", end - HOUR / 2)
    assert state(fleet, plugin.installation)[0] == "blocked"
    check_page(fleet, "", end)
    assert state(fleet, plugin.installation)[0] == "active"


def test_all_pages_are_checked(fleet, actor, monkeypatch):
    monkeypatch.setattr(monitor, "PAGE", 2)
    sent(fleet, *(beat(site_id=str(number)) for number in range(5)))
    register_version(fleet, actor, "woocommerce", "1.4.0")
    after, pages = "", []
    while True:
        page = check_page(fleet, after, NOW)
        pages.append(page.changed)
        after = page.last
        if not after:
            break
    assert pages == [2, 2, 1]


def test_the_health_of_a_day_is_recorded_once(fleet):
    (plugin,) = sent(fleet, beat(), now=NOW - 48 * HOUR)
    record_events(fleet, [event(), event("payment_success")], NOW - 24 * HOUR)
    record_events(fleet, [event()], NOW)
    sent(fleet, beat("globex"), now=NOW)
    day = NOW.date() - timedelta(days=1)
    assert [record_health_page(fleet, "", day).changed for _ in range(2)] == [1, 1]
    (row,) = fleet.execute(select(HEALTH)).all()
    assert tuple(row) == (day, plugin.installation, "active", "1.3.5", 1, 1, 50.0)
    assert delete_health(fleet, day) == 0
    assert delete_health(fleet, NOW.date()) == 1


def test_only_security_updates_are_announced_and_each_once(fleet, actor):
    first, second = sent(fleet, beat(), beat("globex", cms="magento", plugin_version="1.0.0"))
    register_version(fleet, actor, "woocommerce", "1.3.6", is_critical=True)
    register_version(fleet, actor, "magento", "1.0.1")
    check_page(fleet, "", NOW)
    assert [notify_page(fleet, "").changed for _ in range(2)] == [1, 0]
    assert [each.priority for each in list_notices(fleet, first.installation)] == ["critical"]
    assert list_notices(fleet, second.installation) == []
