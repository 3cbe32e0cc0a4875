from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from otelwp_agent.control.fleet.beats import CHUNK, record_beats
from otelwp_agent.control.fleet.installations import get_installation, list_installations
from otelwp_agent.control.fleet.notifications import list_notices, notify_upgrade
from otelwp_agent.control.fleet.tables import INSTALLATIONS
from otelwp_agent.control.fleet.toggles import set_toggle
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import NOW, beat, sent


def test_the_first_beat_creates_and_the_next_ones_update(fleet):
    (first,) = sent(fleet, beat(errors_last_hour=0.5, server_info={"memory_limit": "256M"}, php_version="8.1.0"))
    later = NOW + timedelta(hours=1)
    (again,) = sent(fleet, beat(plugin_version="1.3.6", php_version="8.2.0"), now=later)
    assert again.installation == first.installation
    found = get_installation(fleet, first.installation)
    assert (found.plugin_version, found.php_version, found.status, found.tenant_email) == (
        "1.3.6",
        "8.2.0",
        "active",
        "acme@example.com",
    )
    assert (found.first_seen, found.last_heartbeat, found.errors_last_hour) == (NOW, later, 0.0)
    assert found.server_info == {}


@pytest.mark.parametrize(
    "other",
    [beat("globex"), beat(cms="prestashop"), beat(environment="staging"), beat(site_id="2")],
    ids=["tenant", "cms", "environment", "site"],
)
def test_each_of_these_makes_another_installation(fleet, other):
    assert len({result.installation for result in sent(fleet, beat(), other)}) == 2
    assert fleet.execute(select(func.count()).select_from(INSTALLATIONS)).scalar_one() == 2


def test_many_beats_at_once_are_recorded_in_order(fleet):
    beats = [beat(site_id=str(number)) for number in range(CHUNK + 3)]
    assert [each.installation for each in sent(fleet, *beats)] == [each.installation for each in beats]
    assert len(list_installations(fleet, limit=1000)) == len(beats)


def test_a_replay_changes_nothing(fleet):
    (first,) = sent(fleet, beat(sent_at=NOW, errors_last_hour=3))
    for at in (NOW, NOW - timedelta(seconds=1)):
        (result,) = sent(fleet, beat(sent_at=at, plugin_version="9.9.9"), now=NOW + timedelta(hours=1))
        assert result == (first.installation, True, (), (), False)
    found = get_installation(fleet, first.installation)
    assert (found.plugin_version, found.last_heartbeat) == ("1.3.5", NOW)


def test_a_repeated_beat_gets_its_answer_again_and_changes_nothing(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    one = beat(sent_at=NOW, errors_last_hour=0.1, server_info={"memory_limit": "256M"}, php_version="8.1.0")
    (first,) = sent(fleet, one)
    set_toggle(fleet, actor, first.installation, "enable_debug", value=True, reason="")
    notice = notify_upgrade(fleet, actor, first.installation)
    later = NOW + timedelta(minutes=1)
    (again,) = sent(fleet, one, now=later)
    assert (again.installation, again.replayed, again.repeated) == (first.installation, False, True)
    assert [toggle.key for toggle in again.toggles] == ["enable_debug"]
    assert [each.id for each in again.notices] == [notice.id]
    assert get_installation(fleet, first.installation).last_heartbeat == NOW
    (seen,) = sent(fleet, replace(one, acknowledged=[notice.id]), now=later)
    assert (seen.repeated, seen.notices) == (True, ())


@pytest.mark.parametrize(
    "changed",
    [
        {"plugin_version": "1.3.6"},
        {"sdk_language": "js"},
        {"cms_version": "6.5"},
        {"php_version": "8.3.0"},
        {"server_info": {"memory_limit": "1G"}},
        {"errors_last_hour": 1.0},
        {"sent_at": NOW - timedelta(seconds=1)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_beat_that_differs_from_the_last_one_is_no_repeat(fleet, changed):
    one = beat(sent_at=NOW)
    sent(fleet, one)
    (other,) = sent(fleet, replace(one, **changed))
    assert (other.replayed, other.repeated) == (True, False)


def test_beats_of_one_batch_can_be_repeats_and_replays_of_each_other(fleet):
    first, second = beat(sent_at=NOW), beat(sent_at=NOW + timedelta(seconds=1))
    results = sent(fleet, first, first, second, first, second, replace(second, sent_at=None))
    found = [(each.replayed, each.repeated) for each in results]
    assert found == [(False, False), (False, True), (False, False), (True, False), (False, True), (False, False)]


def test_the_status_follows_from_version_and_toggles(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    (first,) = sent(fleet, beat())
    assert get_installation(fleet, first.installation).status == "outdated"
    set_toggle(fleet, actor, first.installation, "block_plugin", value=True, reason="CVE", confirmed=True)
    assert get_installation(fleet, first.installation).status == "blocked"
    (blocked,) = sent(fleet, beat(plugin_version="1.4.0"))
    assert [(toggle.key, toggle.value) for toggle in blocked.toggles] == [("block_plugin", True)]
    assert get_installation(fleet, first.installation).status == "blocked"
    set_toggle(fleet, actor, first.installation, "block_plugin", value=False)
    assert get_installation(fleet, first.installation).status == "active"
    assert sent(fleet, beat(plugin_version="1.4.0"))[0].toggles == ()


def test_notices_are_in_the_reply_until_somebody_has_seen_them(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0", notes="Faster")
    (first,) = sent(fleet, beat())
    notice = notify_upgrade(fleet, actor, first.installation)
    later = NOW + timedelta(hours=1)
    (reply,) = sent(fleet, beat(), now=later)
    assert [(each.id, each.notes, each.priority) for each in reply.notices] == [(notice.id, "Faster", "normal")]
    assert sent(fleet, beat("globex", acknowledged=[notice.id]), beat())[1].notices, "it is not that one's notice"
    assert sent(fleet, beat(acknowledged=[notice.id, "unknown"]), now=later)[0].notices == ()
    (kept,) = list_notices(fleet, first.installation)
    assert (kept.sent_at, kept.acknowledged_at) == (later, later)


def test_an_updated_plugin_gets_no_notice(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    (first,) = sent(fleet, beat())
    notify_upgrade(fleet, actor, first.installation)
    assert sent(fleet, beat(plugin_version="1.4.0"))[0].notices == ()


def test_no_beats(fleet):
    assert record_beats(fleet, [], NOW) == []
