import random

import pytest

from otelwp_agent.sampling.adaptive.controller import (
    Controller,
)
from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling, Policy, SiteRule
from otelwp_agent.sampling.adaptive.trace import Decision, Trace
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, threshold_of
from tests.kit.controllers import KEY, NOTHING, fresh


def test_site_rules_lower_and_minimums_raise_probabilities():
    policy = Policy(
        always=NOTHING,
        site_rules=(SiteRule(0.01, above=10_000 / 3600),),
        site_minimum=0.5,
        site_ceiling=Ceiling(traces_per_second=100),
    )
    controller = Controller(policy, 0.0)
    decided = []
    for second in range(300):
        for index in range(20):
            trace = Trace(random.Random(second * 20 + index).getrandbits(56), key=KEY, site="busy.example")
            decided.append((second, controller.decide(trace, second + index / 20)))
        controller.decide(Trace(second, key=KEY, site="small.example"), float(second))
        controller.tick(second + 1.0)
    late = [decision for second, decision in decided if second >= 100]
    assert {decision.reason for decision in late} == {"site_minimum"}
    assert sum(decision.keep for decision in late) == pytest.approx(0.5 * 200, rel=0.3)
    assert controller.decide(Trace(0, key=KEY, site="small.example"), 301.0).keep
    assert controller.decide(Trace(0, key=KEY), 301.0).keep, "without a site there is no rule"


def test_minimums_have_a_ceiling():
    policy = Policy(
        always=NOTHING,
        site_rules=(SiteRule(0.0),),
        site_minimum=10.0,
        site_ceiling=Ceiling(traces_per_second=3),
    )
    controller = Controller(policy, 0.0)
    number = 0
    for at in range(4000):
        number += controller.decide(Trace(NEVER - 1, key=KEY, site=f"s{at % 400}"), at / 100).keep
    assert number == pytest.approx(3 * 40 + 3 * CEILING_SECONDS, abs=3)


SITE = "a.example"


def test_a_rule_alone_cuts_and_a_minimum_alone_lifts():
    controller = Controller(Policy(always=NOTHING, site_rules=(SiteRule(0.0),)), 0.0)
    decision = controller.decide(Trace(NEVER - 1, key=KEY, site=SITE), 3.0)
    assert (decision.keep, decision.reason) == (False, "site_rule")
    assert controller.sites.states[SITE].last_seen == 3.0
    policy = Policy(
        budget=Budget.spans_per_second(100), always=NOTHING, site_minimum=1.0, site_ceiling=Ceiling(share=0.5)
    )
    controller, state = fresh(policy)
    state.threshold = threshold_of(0.25)
    decision = controller.decide(Trace(0, key=KEY, site=SITE, spans=3), 100.0)
    assert decision == Decision(keep=True, threshold=ALWAYS, reason="site_minimum")
    assert controller.always.site_minimum.levels == [0.5 * 100 * CEILING_SECONDS - 3]


def test_a_site_that_no_rule_cuts_and_no_minimum_lifts_is_left_to_the_budget():
    policy = Policy(always=NOTHING, site_minimum=1.0, site_ceiling=Ceiling(traces_per_second=10))
    controller = Controller(policy, 0.0)
    decision = controller.decide(Trace(0, key=KEY, site=SITE), 0.0)
    assert decision == Decision(keep=True, threshold=ALWAYS, reason="budget")
    assert controller.always.site_minimum.levels == [10 * CEILING_SECONDS]


@pytest.mark.parametrize(
    ("randomness", "charged"),
    [
        (threshold_of(0.5) - 1, 0),
        (threshold_of(0.5), 1),
        (threshold_of(0.25) - 1, 1),
        (threshold_of(0.25), 0),
    ],
)
def test_a_minimum_pays_for_what_the_budget_would_have_dropped(randomness, charged):
    policy = Policy(always=NOTHING, site_minimum=1.0, site_ceiling=Ceiling(traces_per_second=10))
    controller = Controller(policy, 0.0)
    controller.decide(Trace(0, key=KEY, site=SITE), 0.0)
    dict(controller.keys())[KEY].threshold = threshold_of(0.25)
    controller.sites.states[SITE].floor = threshold_of(0.5)
    decision = controller.decide(Trace(randomness, key=KEY, site=SITE), 0.0)
    assert (decision.threshold, decision.reason) == (threshold_of(0.5), "site_minimum")
    assert controller.always.site_minimum.levels == [10 * CEILING_SECONDS - charged]


def test_minimums_beyond_their_ceiling_are_counted():
    ceiling = Ceiling(traces_per_second=1)
    policy = Policy(always=NOTHING, site_rules=(SiteRule(0.0),), site_minimum=1.0, site_ceiling=ceiling)
    controller = Controller(policy, 0.0)
    reasons = [controller.decide(Trace(0, key=KEY, site=SITE), 0.0).reason for _ in range(8)]
    assert reasons == ["site_minimum"] * 5 + ["site_rule"] * 3
    assert controller.always.site_minimum.over == 3


def test_what_a_site_rule_keeps_is_planned_for_apart():
    policy = Policy(budget=Budget.spans_per_second(1000), always=NOTHING, site_rules=(SiteRule(0.5),))
    controller, state = fresh(policy)
    for certain in (2, 4):
        controller.decide(Trace(0, key=KEY, site=SITE, spans=4), 100.0)
        assert controller.certain == certain
    controller.decide(Trace(NEVER - 1, threshold_of(0.25), key=KEY, site=SITE, spans=4), 100.0)
    assert controller.certain == 8, "of four that it stands for all are counted, but no more than it is itself"
    assert (state.weight, state.adjusted) == (0, 0)


def test_without_rules_sites_are_not_remembered_and_without_a_site_no_rule_holds():
    controller = Controller(Policy(always=NOTHING), 0.0)
    controller.decide(Trace(0, key=KEY, site=SITE), 0.0)
    assert controller.sites.states == {}
    controller = Controller(Policy(always=NOTHING, site_rules=(SiteRule(0.0),)), 0.0)
    assert controller.decide(Trace(0, key=KEY), 0.0).keep
    assert controller.sites.states == {}
