from datetime import timedelta

from sqlalchemy import update

from otelwp_agent.control.fleet.overview import alerts, statistics
from otelwp_agent.control.fleet.tables import INSTALLATIONS
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import NOW, beat, sent


def test_an_empty_fleet(fleet):
    found = statistics(fleet, NOW)
    assert found.to_json() == {
        "active_count": 0,
        "outdated_count": 0,
        "blocked_count": 0,
        "error_count": 0,
        "high_error_rate_count": 0,
        "stale_count": 0,
        "avg_error_rate": 0.0,
        "cms_breakdown": [],
    }
    assert alerts(found) == []


def test_counts_and_alerts(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    beats = [beat(site_id=str(number), plugin_version="1.4.0" if number < 23 else "1.3.0") for number in range(29)]
    sent(fleet, *beats, now=NOW)
    sent(fleet, beat("globex", cms="magento"), now=NOW - timedelta(hours=49))
    found = statistics(fleet, NOW)
    assert (found.total, found.outdated_percentage, found.stale) == (30, 20.0, 1)
    assert alerts(found) == []
    failing = [each.installation for each in beats[:6]]
    fleet.execute(update(INSTALLATIONS).where(INSTALLATIONS.c.id.in_(failing)).values(error_rate=10.0))
    sent(fleet, beat(site_id="0", plugin_version="1.3.0"))
    found = statistics(fleet, NOW)
    assert (found.high_error_rate, found.avg_error_rate, found.statuses["outdated"]) == (6, 2.0, 7)
    assert found.to_json()["cms_breakdown"] == [{"cms": "woocommerce", "count": 29}, {"cms": "magento", "count": 1}]
    assert [(each.name, each.value) for each in alerts(found)] == [
        ("PluginOutdatedHigh", 23.33),
        ("PluginHighErrorRate", 6),
    ]
