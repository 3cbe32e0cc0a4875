import pytest

from otelwp_agent.control.errors import InvalidValueError, UnknownNameError
from otelwp_agent.control.fleet.installations import get_installation, list_installations
from otelwp_agent.control.fleet.versions import register_version
from tests.kit.fleet import beat, sent


def test_lists_are_filtered_and_have_pages(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.4.0")
    sent(fleet, *(beat(site_id=str(number)) for number in range(3)), beat("globex", cms="magento"))
    ids = [each.id for each in list_installations(fleet)]
    assert ids == sorted(ids)
    first = list_installations(fleet, limit=3)
    assert [each.id for each in first + list_installations(fleet, after=first[-1].id, limit=3)] == ids
    assert {each.cms for each in list_installations(fleet, status="outdated")} == {"woocommerce"}
    assert [each.tenant for each in list_installations(fleet, cms="magento")] == ["globex"]
    assert [each.latest_version for each in list_installations(fleet, tenant="globex")] == [None]
    assert list_installations(fleet, cms="magento", status="outdated") == []


def test_what_is_refused(fleet):
    with pytest.raises(UnknownNameError, match="fleet list"):
        get_installation(fleet, "none")
    with pytest.raises(InvalidValueError, match="is not a status: use active"):
        list_installations(fleet, status="asleep")
