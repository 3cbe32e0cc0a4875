import pytest

from otelwp_agent.sealing.envelope import SealedHeader
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.freshness import Freshness, check_tenant

NOW = 1_700_000_000.0


def header(seconds):
    return SealedHeader("acme", int((NOW + seconds) * 1000))


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_time_in_the_window_is_fresh(seconds):
    Freshness().check(header(seconds), NOW)


@pytest.mark.parametrize(("seconds", "text"), [(-301, "301 s old"), (-36_000, "seal it again"), (301, "set the clock")])
def test_a_time_outside_the_window_is_stale(seconds, text):
    with pytest.raises(SealedError, match=text) as caught:
        Freshness().check(header(seconds), NOW)
    assert caught.value.reason == "stale"


def test_the_window_is_a_setting():
    Freshness(past=3600).check(header(-3000), NOW)
    with pytest.raises(SealedError):
        Freshness(future=1).check(header(2), NOW)


def test_the_customer_must_be_the_tenant_of_the_credential():
    check_tenant(header(0), "acme")
    for tenant in ("globex", "", "ACME"):
        with pytest.raises(SealedError) as caught:
            check_tenant(header(0), tenant)
        assert caught.value.reason == "other_tenant"
