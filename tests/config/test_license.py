"""Settings of `service.license`."""

import pytest
from pydantic import ValidationError

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.tier import Tier


def test_defaults():
    settings = LicenseConfig(key="text")
    assert (settings.url, settings.public_keys, settings.grace) == (None, [], 14 * 86400)
    assert "text" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give one of them"),
        ({"key": "a", "file": "b"}, "give one of them"),
        ({"key": "a", "url": "http://license.example"}, "not encrypted"),
        ({"key": "a", "url": "https://license.example?a=b"}, "no query"),
        ({"key": "a", "grace": 5}, "needs a unit"),
        ({"key": "a", "public_keys": ["k"] * 33}, "at most 32"),
        ({"key": 5}, "valid string"),
        ({"key": "a", "leese": 1}, "Extra inputs"),
    ],
)
def test_invalid_settings_are_refused(given, why):
    with pytest.raises(ValidationError, match=why):
        LicenseConfig.model_validate(given)


def test_the_state_is_beside_the_journal_unless_a_file_is_given(tmp_path):
    def path(license_, journal=None):
        return ServiceConfig.model_validate({"license": license_, "journal": journal}).license_state_path

    journal = {"directory": str(tmp_path)}
    assert path(None, journal) is None
    assert path({"key": "a"}) is None
    assert path({"key": "a"}, journal) == str(tmp_path / "license-state.json")
    assert path({"key": "a", "state_file": "/x/y"}, journal) == "/x/y"
    assert path({"key": "a", "state_file": "none"}, journal) is None


def test_only_a_tier_in_the_configuration_is_stated():
    assert ServiceConfig().stated_tier is None
    assert ServiceConfig(tier="pro").stated_tier is Tier.PRO
    assert ServiceConfig(tier="enterprise").stated_tier is Tier.ENTERPRISE
