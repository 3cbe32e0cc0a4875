"""Times of a licence are whole days in UTC."""

from datetime import UTC, date, datetime

from otelwp_agent.tier import Tier
from tests.licensing.issuer import ISSUER


def test_a_licence_ends_with_its_last_day_in_utc():
    terms = ISSUER.terms(expires=date(2027, 12, 31))
    assert terms.ends_at == datetime(2028, 1, 1, tzinfo=UTC).timestamp()


def test_a_licence_starts_with_its_first_day_in_utc():
    assert ISSUER.terms().starts_at == 0
    assert ISSUER.terms(not_before=date(2027, 3, 1)).starts_at == datetime(2027, 3, 1, tzinfo=UTC).timestamp()


def test_the_last_possible_day_is_accepted():
    assert ISSUER.terms(expires=date(9999, 12, 31)).ends_at > ISSUER.terms().ends_at


def test_the_tier_is_one_of_the_products():
    assert ISSUER.terms(tier="enterprise").level is Tier.ENTERPRISE
