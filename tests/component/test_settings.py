import pytest
from pydantic import ValidationError

from otelwp_agent.component import ComponentConfig, ExporterConfig, ReceiverConfig


class TimedConfig(ExporterConfig):
    timeout: float = 5.0


def test_the_timeout_of_an_exporter_limits_each_attempt():
    assert TimedConfig().attempt_timeout == 5.0
    assert TimedConfig(timeout=1).attempt_timeout == 1.0


def test_an_exporter_without_a_timeout_limits_its_own_attempts():
    assert ExporterConfig().attempt_timeout == 0.0


@pytest.mark.parametrize("config", [ComponentConfig, ReceiverConfig, ExporterConfig])
def test_unknown_keys_are_refused(config):
    with pytest.raises(ValidationError, match="unknown"):
        config.model_validate({"unknown": 1})


@pytest.mark.parametrize(
    "settings", [{"acknowledge": "never"}, {"max_items_per_request": 0}, {"max_items_per_request": "many"}]
)
def test_invalid_settings_of_receivers_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        ReceiverConfig.model_validate(settings)


def test_a_config_cannot_be_changed():
    config = ReceiverConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.acknowledge = "delivered"
