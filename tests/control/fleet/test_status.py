from datetime import timedelta

import pytest

from otelwp_agent.control.fleet.status import error_rate, status_of
from tests.kit.fleet import NOW

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("version", "age", "blocked", "wanted"),
    [
        ("1.10.0", 0, False, "active"),
        ("1.11.0", 48, False, "active"),
        ("1.9.0", 0, False, "outdated"),
        ("1.9.0", 48.01, False, "error"),
        ("1.10.0", 100, True, "blocked"),
    ],
)
def test_the_status_of_an_installation(version, age, blocked, wanted):
    latest = {"woocommerce": "1.10.0"}
    assert status_of("woocommerce", version, NOW - age * HOUR, latest=latest, is_blocked=blocked, now=NOW) == wanted


def test_without_a_registered_version_nothing_is_outdated():
    assert status_of("magento", "0.1", NOW, latest={"woocommerce": "1.0"}, is_blocked=False, now=NOW) == "active"


@pytest.mark.parametrize(("errors", "successes", "rate"), [(0, 0, 0.0), (1, 0, 100.0), (1, 39, 2.5), (1, 2, 33.33)])
def test_error_rates_are_percentages(errors, successes, rate):
    assert error_rate(errors, successes) == rate
