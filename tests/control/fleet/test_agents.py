from datetime import timedelta

import pytest
from sqlalchemy import func, select

from otelwp_agent.codecs.opamp.reports import parse_report
from otelwp_agent.control.fleet.agents import TenantReport, get_agent, record_reports
from otelwp_agent.control.fleet.installations import get_installation, list_installations
from otelwp_agent.control.fleet.tables import INSTALLATIONS
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import NOW
from tests.kit.opamp import UID, health, message

SHOP = {"service.name": "shop", "service.version": "v1.2.3", "deployment.environment.name": "staging"}


def reported(connection, *messages, tenant="acme", cms=None, now=NOW):
    reports = [TenantReport(tenant, parse_report(each.SerializeToString()), cms or {}) for each in messages]
    return record_reports(connection, reports, now)


def test_an_agent_is_an_installation(fleet, actor):
    register_version(fleet, actor, "otelcol", "1.3.0")
    (found,) = reported(fleet, message(attributes=SHOP), cms={"shop": "otelcol"})
    (listed,) = list_installations(fleet)
    assert listed.id == found.installation
    assert (listed.cms, listed.environment, listed.site_id) == ("otelcol", "staging", UID.hex())
    assert (listed.plugin_version, listed.status) == ("1.2.3", "outdated")
    assert not found.needs_state


def test_an_agent_that_has_not_described_itself(fleet):
    assert reported(fleet, message(5)) == [("", True, False)]
    assert list_installations(fleet) == []
    disconnect = message(6)
    disconnect.agent_disconnect.SetInParent()
    assert reported(fleet, disconnect) == [("", False, False)]


def test_parts_that_are_not_sent_are_kept(fleet):
    first = message(0, attributes=SHOP, health=health("no backend"))
    first.effective_config.config_map.config_map[""].body = b"receivers: {}"
    (found,) = reported(fleet, first)
    later = NOW + timedelta(minutes=1)
    assert reported(fleet, message(1), now=later) == [found]
    agent = get_agent(fleet, found.installation)
    assert (agent.sequence, agent.healthy, agent.reported) == (1, False, later)
    assert agent.health["last_error"] == "no backend"
    assert agent.effective_config == {"": "receivers: {}"}
    assert agent.attributes == SHOP
    assert get_installation(fleet, found.installation).last_heartbeat == later
    reported(fleet, message(2, health=health()))
    assert get_agent(fleet, found.installation).healthy


@pytest.mark.parametrize("sequence", [0, 1, 3])
def test_missing_and_repeated_messages(fleet, sequence):
    reported(fleet, message(0, attributes=SHOP), message(1))
    (found,) = reported(fleet, message(sequence))
    assert found.needs_state
    (again,) = reported(fleet, message(9, attributes=SHOP))
    assert not again.needs_state


def test_components_of_which_only_the_hash_was_sent(fleet):
    first = message(0, attributes=SHOP)
    first.available_components.hash = b"\x01"
    (found,) = reported(fleet, first)
    assert found.needs_components
    second = message(1)
    second.available_components.hash = b"\x01"
    second.available_components.components["receivers"].sub_component_map["otlp"].SetInParent()
    assert not reported(fleet, second)[0].needs_components
    third = message(2)
    third.available_components.hash = b"\x01"
    assert not reported(fleet, third)[0].needs_components
    assert get_agent(fleet, found.installation).components == ["receivers/otlp"]


def test_an_agent_keeps_its_installation(fleet):
    (first,) = reported(fleet, message(0, attributes=SHOP))
    (moved,) = reported(fleet, message(1, attributes={**SHOP, "deployment.environment.name": "production"}))
    assert moved.installation == first.installation
    assert fleet.execute(select(func.count()).select_from(INSTALLATIONS)).scalar_one() == 1


def test_tenants_do_not_share_agents(fleet):
    (ours,) = reported(fleet, message(0, attributes=SHOP))
    assert reported(fleet, message(1), tenant="globex") == [("", True, False)]
    (theirs,) = reported(fleet, message(1, attributes=SHOP), tenant="globex")
    assert ours.installation != theirs.installation
    assert get_agent(fleet, ours.installation).sequence == 0


def test_a_version_that_cannot_be_compared(fleet):
    reported(fleet, message(attributes={"service.version": "latest"}))
    (listed,) = list_installations(fleet)
    assert (listed.plugin_version, listed.cms, listed.environment) == ("0", "opamp", "production")


def test_a_group_of_many_agents(fleet):
    uids = [number.to_bytes(16) for number in range(1200)]
    found = reported(fleet, *(message(uid=uid, attributes=SHOP) for uid in uids), *(message(1, uid) for uid in uids))
    assert len({each.installation for each in found}) == 1200
    assert not any(each.needs_state for each in found)


def test_a_disconnected_agent(fleet):
    bye = message(1)
    bye.agent_disconnect.SetInParent()
    found = reported(fleet, message(0, attributes=SHOP), bye)
    assert get_agent(fleet, found[0].installation).disconnected
    reported(fleet, message(2))
    assert not get_agent(fleet, found[0].installation).disconnected
    assert get_agent(fleet, "unknown") is None
