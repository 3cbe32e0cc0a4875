from datetime import timedelta

from otelwp_agent.control.fleet.events import (
    EventCounts,
    PluginEvent,
    count_events,
    delete_events,
    recent_events,
    record_events,
)
from tests.kit.fleet import NOW, beat, sent


def event(event_type="payment_failed", tenant="acme", **fields):
    return PluginEvent(
        **{
            "tenant": tenant,
            "cms": "woocommerce",
            "environment": "production",
            "site_id": "",
            "event_type": event_type,
            "severity": "error",
            **fields,
        }
    )


def test_events_are_stored_with_their_installation(fleet):
    (plugin,) = sent(fleet, beat(php_version="8.1.0"))
    first, second = event(event_data={"order_id": "1"}, stack_trace="#0"), event("payment_success", severity="info")
    results = record_events(fleet, [first, second], NOW)
    assert [(each.refusal, each.source.installation, each.source.php_version) for each in results] == [
        ("", plugin.installation, "8.1.0")
    ] * 2
    found = recent_events(fleet, plugin.installation)
    assert [each["event_type"] for each in found] == ["payment_success", "payment_failed"]
    assert found[1] == {
        "event_type": "payment_failed",
        "severity": "error",
        "event_data": {"order_id": "1"},
        "stack_trace": "#0",
        "received": NOW.isoformat(),
    }


def test_refused_events_store_nothing(fleet):
    ours, theirs = sent(fleet, beat(), beat("globex"))
    results = record_events(
        fleet,
        [
            event(environment="staging"),
            event(installation=theirs.installation),
            event(installation=ours.installation, cms="magento"),
            event(event_id="1"),
            event(event_id="1"),
        ],
        NOW,
    )
    assert [each.refusal for each in results] == ["unknown", "foreign", "foreign", "", "replayed"]
    assert record_events(fleet, [event(event_id="1")], NOW)[0].refusal == "replayed"
    assert len(recent_events(fleet, ours.installation)) == 1
    assert recent_events(fleet, theirs.installation) == []


def test_counts_are_of_a_period(fleet):
    ours, theirs = (each.installation for each in sent(fleet, beat(), beat("globex")))
    day = timedelta(days=1)
    record_events(fleet, [event("error"), event("payment_success")], NOW - day)
    record_events(fleet, [event("error"), event(), event("info"), event("payment_success")], NOW - day / 2)
    record_events(fleet, [event("error")], NOW)
    assert count_events(fleet, [ours, theirs], NOW - day / 2, NOW) == {ours: EventCounts(2, 1), theirs: (0, 0)}


def test_old_events_are_deleted_oldest_first(fleet):
    (plugin,) = sent(fleet, beat())
    for hours in (3, 2, 1):
        record_events(fleet, [event(event_id=str(hours))], NOW - timedelta(hours=hours))
    before = NOW - timedelta(hours=1)
    assert [delete_events(fleet, before, 1) for _ in range(3)] == [1, 1, 0]
    assert len(recent_events(fleet, plugin.installation)) == 1
