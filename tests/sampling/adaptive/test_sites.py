import pytest

from otelwp_agent.sampling.adaptive.policy import SiteRule
from otelwp_agent.sampling.adaptive.sites import SiteTable
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, probability_of, threshold_near

HOUR = 3600.0


def settle(sites, site, per_hour, seconds=600):
    for second in range(seconds):
        state = sites.find(site, float(second))
        state.seen += per_hour / HOUR
        sites.measure(second + 1.0, 1.0)
    return sites.states[site]


@pytest.mark.parametrize(("per_hour", "probability"), [(9_000, 1.0), (11_000, 0.001), (60_000, 0.0001)])
def test_busy_sites_are_reduced(per_hour, probability):
    rules = (SiteRule(0.001, above=10_000 / HOUR), SiteRule(0.0001, above=50_000 / HOUR))
    state = settle(SiteTable(rules, 0.0, 10, HOUR), "shop.example", per_hour)
    assert probability_of(state.cap) == pytest.approx(probability, rel=1e-3)
    assert state.floor == NEVER


def test_a_rule_can_be_for_some_sites():
    sites = SiteTable((SiteRule(0.1, sites=frozenset({"a.example"})),), 0.0, 10, HOUR)
    assert probability_of(sites.find("a.example", 0.0).cap) == pytest.approx(0.1, rel=1e-3)
    assert sites.find("b.example", 0.0).cap == ALWAYS


def test_the_first_traces_of_a_new_site_do_not_count_as_heavy_traffic():
    sites = SiteTable((SiteRule(0.001, above=1.0),), 0.0, 10, HOUR)
    sites.find("a.example", 0.0).seen += 20
    sites.measure(1.0, 1.0)
    assert sites.find("a.example", 1.0).cap == ALWAYS


def test_the_minimum_is_a_probability():
    sites = SiteTable((), 60 / HOUR, 10, HOUR)
    assert settle(sites, "busy.example", 6_000).floor == pytest.approx(threshold_near(0.01), rel=1e-3)
    assert settle(sites, "small.example", 30).floor == ALWAYS


def test_too_many_sites_have_no_rules():
    sites = SiteTable((SiteRule(0.1),), 0.0, 2, HOUR)
    assert sites.find("a", 0.0)
    assert sites.find("b", 0.0)
    assert sites.find("c", 0.0) is None
    assert sites.find("a", 0.0)


def test_sites_without_traffic_are_removed():
    sites = SiteTable((SiteRule(0.1),), 0.0, 2, 100.0)
    sites.find("a", 0.0)
    sites.measure(101.0, 101.0)
    assert not sites.states


def test_traffic_that_ends_is_forgotten():
    rules = (SiteRule(0.001, above=10_000 / HOUR),)
    sites = SiteTable(rules, 0.0, 10, HOUR)
    settle(sites, "a", 20_000)
    assert sites.states["a"].cap > ALWAYS
    for second in range(1200):
        sites.measure(600.0 + second, 1.0)
    assert sites.states["a"].cap == ALWAYS
