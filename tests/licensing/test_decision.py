"""What an agent may use follows from its licence, the time, `service.tier` and the distributor."""

from datetime import date

import pytest

from otelwp_agent.licensing.decision import with_license, without_license
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.tier import Tier
from tests.licensing.issuer import DAY, ISSUER, START

GRACE = 14 * DAY


def decide(now, **terms):
    return with_license(ISSUER.terms(**terms), now, GRACE)


@pytest.mark.parametrize(
    ("tier", "required", "expected"),
    [
        (None, False, (Tier.ENTERPRISE, Basis.EVALUATION)),
        (Tier.PRO, False, (Tier.PRO, Basis.CONFIGURED)),
        (Tier.FREE, False, (Tier.FREE, Basis.CONFIGURED)),
        (None, True, (Tier.FREE, Basis.REQUIRED)),
        (Tier.ENTERPRISE, True, (Tier.FREE, Basis.REQUIRED)),
    ],
)
def test_without_a_licence(tier, required, expected):
    found = without_license(tier, required=required)
    assert (found.tier, found.basis) == expected
    assert found.reason


def test_a_licence_without_a_lease_is_valid_until_the_end_of_its_last_day():
    end = ISSUER.terms().ends_at
    found = decide(end - 0.001)
    assert (found.tier, found.basis, found.until) == (Tier.PRO, Basis.LICENSE, end)
    found = decide(end)
    assert (found.tier, found.basis, found.until) == (Tier.FREE, Basis.LAPSED, None)
    assert "expired at the end of 2027-12-31 (UTC): renew it" in found.reason


def test_a_licence_is_not_valid_before_its_first_day():
    first = ISSUER.terms(not_before=date(2027, 2, 1)).starts_at
    assert decide(first - 1, not_before=date(2027, 2, 1)).basis is Basis.LAPSED
    assert decide(first, not_before=date(2027, 2, 1)).basis is Basis.LICENSE


def test_after_the_lease_the_tier_holds_for_the_grace_period():
    lease = int(START + 30 * DAY)
    assert decide(lease - 1, lease=lease).basis is Basis.LICENSE
    assert decide(lease - 1, lease=lease).until == lease + GRACE
    found = decide(lease, lease=lease)
    assert (found.tier, found.basis, found.until) == (Tier.PRO, Basis.GRACE, lease + GRACE)
    assert decide(lease + GRACE - 1, lease=lease).basis is Basis.GRACE
    found = decide(lease + GRACE, lease=lease)
    assert (found.tier, found.basis) == (Tier.FREE, Basis.LAPSED)
    assert "14 days" in found.reason


def test_grace_does_not_extend_a_licence_that_has_expired():
    end = ISSUER.terms().ends_at
    lease = int(end - DAY)
    assert decide(lease, lease=lease).until == end
    assert decide(end, lease=lease).basis is Basis.LAPSED


def test_a_revoked_licence_is_free_at_once_and_says_why():
    found = decide(START, revoked="not paid", lease=int(START + DAY))
    assert (found.tier, found.basis) == (Tier.FREE, Basis.LAPSED)
    assert "revoked: not paid" in found.reason
    assert decide(START, revoked="").tier is Tier.FREE


def test_features_and_limits_are_those_of_the_licence_while_it_is_valid():
    found = decide(START, features=["fleet"], limits={"sites": 5})
    assert found.features == {"fleet"}
    assert dict(found.limits) == {"sites": 5}
    lapsed = decide(START + 400 * DAY, features=["fleet"], limits={"sites": 5})
    assert not lapsed.features
    assert not lapsed.limits
