from datetime import timedelta

import pytest

from otelwp_agent.control import audit
from otelwp_agent.control.errors import InvalidValueError, UnknownNameError
from otelwp_agent.control.fleet.toggles import active_toggles, list_toggles, set_toggle
from otelwp_agent.control.mutation import Actor
from tests.kit.fleet import beat, sent


def test_a_toggle_is_set_again_with_the_same_id(fleet, actor):
    (plugin,) = sent(fleet, beat())
    first = set_toggle(fleet, actor, plugin.installation, "enable_debug", value=True, reason="Ticket 7")
    second = set_toggle(fleet, Actor("operator:bob"), plugin.installation, "enable_debug", value=False)
    assert second.id == first.id
    assert (second.updated_by, second.reason, second.value) == ("operator:bob", "", False)
    assert active_toggles(fleet, [plugin.installation], second.updated) == {}
    last, before = audit.list_events(fleet, limit=2, target=plugin.installation)
    assert (last.event.action, before.event.actor) == ("toggle.set", "operator:alice")
    assert '"toggle_value":true' in last.event.before


def test_a_toggle_ends_when_it_expires(fleet, actor):
    (plugin,) = sent(fleet, beat())
    toggle = set_toggle(fleet, actor, plugin.installation, "rate_limit", value=True)
    end = toggle.updated + timedelta(hours=1)
    toggle = set_toggle(fleet, actor, plugin.installation, "rate_limit", value=True, expires_at=end)
    ids = [plugin.installation]
    assert active_toggles(fleet, ids, end - timedelta(seconds=1)) == {plugin.installation: [toggle]}
    assert active_toggles(fleet, ids, end) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "explode"}, "is not a toggle: use block_plugin"),
        ({"key": "block_plugin"}, "needs a reason"),
        ({"key": "rate_limit", "reason": "a\nb"}, "is not a valid reason"),
        ({"key": "rate_limit", "expires_at": timedelta(0)}, "has passed"),
    ],
)
def test_what_is_refused(fleet, actor, arguments, message):
    (plugin,) = sent(fleet, beat())
    toggle = set_toggle(fleet, actor, plugin.installation, "enable_debug", value=False)
    if "expires_at" in arguments:
        arguments = arguments | {"expires_at": toggle.updated}
    with pytest.raises(InvalidValueError, match=message):
        set_toggle(fleet, actor, plugin.installation, value=True, **arguments)


def test_an_unknown_installation(fleet, actor):
    with pytest.raises(UnknownNameError, match="fleet list"):
        set_toggle(fleet, actor, "none", "rate_limit", value=True)


def test_a_plugin_is_blocked_by_two_operators(fleet, actor):
    (plugin,) = sent(fleet, beat())
    id_ = plugin.installation

    def block(name, **more):
        return set_toggle(fleet, Actor(name), id_, "block_plugin", value=True, reason="CVE", **more)

    assert block("operator:alice").pending
    assert block("operator:alice").pending, "the same operator does not count twice"
    assert sent(fleet, beat())[0].toggles == ()
    second = block("operator:bob")
    assert (second.pending, second.to_json()["state"]) == (False, "set")
    assert [toggle.key for toggle in sent(fleet, beat())[0].toggles] == ["block_plugin"]
    assert not block("operator:alice").pending, "it is in effect: the reason can be changed by one operator"
    set_toggle(fleet, Actor("operator:alice"), id_, "block_plugin", value=False)
    assert block("operator:bob").pending, "it was unblocked meanwhile"
    assert not block("cli:root", confirmed=True).pending
    assert [each.key for each in list_toggles(fleet, id_)] == ["block_plugin"]
