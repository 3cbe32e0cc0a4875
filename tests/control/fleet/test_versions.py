import pytest

from otelwp_agent.control.errors import ConflictError, InvalidValueError
from otelwp_agent.control.fleet.versions import LONGEST_NOTES, latest_versions, list_versions, register_version


def test_one_version_of_each_cms_is_the_latest(fleet, actor):
    register_version(fleet, actor, "woocommerce", "1.9.0")
    register_version(fleet, actor, "woocommerce", "1.10.0", is_critical=True, notes="Security")
    register_version(fleet, actor, "woocommerce", "2.0.0-beta.1", is_latest=False)
    register_version(fleet, actor, "magento", "1.0.0")
    assert latest_versions(fleet) == {"woocommerce": "1.10.0", "magento": "1.0.0"}
    assert [(each.cms, each.version) for each in list_versions(fleet)] == [
        ("magento", "1.0.0"),
        ("woocommerce", "2.0.0-beta.1"),
        ("woocommerce", "1.10.0"),
        ("woocommerce", "1.9.0"),
    ]


def test_what_is_refused(fleet, actor):
    register_version(fleet, actor, "magento", "1.0.0")
    with pytest.raises(ConflictError, match="registered already"):
        register_version(fleet, actor, "magento", "1.0.0")
    for cms, version, notes in (("Magento", "1", ""), ("magento", "v1", ""), ("magento", "2", "x" * LONGEST_NOTES * 2)):
        with pytest.raises(InvalidValueError):
            register_version(fleet, actor, cms, version, notes=notes)
    assert latest_versions(fleet) == {"magento": "1.0.0"}
