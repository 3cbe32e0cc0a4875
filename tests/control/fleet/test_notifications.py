import pytest

from otelwp_agent.control.errors import ConflictError, InvalidValueError
from otelwp_agent.control.fleet.notifications import acknowledge, list_notices, notify_upgrade
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import NOW, beat, sent


@pytest.mark.parametrize(
    ("latest", "critical", "priority"),
    [
        ("1.3.6", False, "low"),
        ("1.4.0", False, "normal"),
        ("2.0.0", False, "high"),
        ("1.3.6", True, "critical"),
    ],
)
def test_the_priority_follows_from_the_version(fleet, actor, latest, critical, priority):
    register_version(fleet, actor, "woocommerce", "1.3.0", is_critical=True)
    register_version(fleet, actor, "woocommerce", latest, is_critical=critical)
    (plugin,) = sent(fleet, beat())
    assert notify_upgrade(fleet, actor, plugin.installation).priority == priority


def test_a_version_that_skips_a_security_fix_is_critical(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.3.6", is_critical=True)
    register_version(fleet, actor, "woocommerce", "1.3.7")
    (plugin,) = sent(fleet, beat())
    assert notify_upgrade(fleet, actor, plugin.installation).priority == "critical"


def test_a_notice_is_not_sent_twice(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    (plugin,) = sent(fleet, beat())
    first = notify_upgrade(fleet, actor, plugin.installation)
    assert notify_upgrade(fleet, actor, plugin.installation) == first
    acknowledge(fleet, [(plugin.installation, first.id)], NOW)
    assert notify_upgrade(fleet, actor, plugin.installation).id != first.id, "an operator asks again"
    assert len(list_notices(fleet, plugin.installation)) == 2


def test_what_is_refused(fleet, actor):
    (plugin,) = sent(fleet, beat())
    with pytest.raises(ConflictError, match="no version is registered"):
        notify_upgrade(fleet, actor, plugin.installation)
    register_version(fleet, actor, "woocommerce", "1.3.5")
    with pytest.raises(ConflictError, match=r"the latest is 1\.3\.5"):
        notify_upgrade(fleet, actor, plugin.installation)
    with pytest.raises(InvalidValueError, match="cannot be sent by 'fax'"):
        notify_upgrade(fleet, actor, plugin.installation, "fax")
