"""`AlwaysKept` finds the rule that keeps a trace."""

import math

import pytest

from otelwp_agent.sampling.adaptive.always import AlwaysKept
from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS
from otelwp_agent.sampling.adaptive.keys import KeyState
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Ceiling, FirstSights, Policy, Slow
from otelwp_agent.sampling.adaptive.trace import Reason

BUDGET = Budget.traces_per_second(100)


def reason_of(always, state, duration=0.1, release="", *, error=False, debug=False, other=False):
    limit = always.limit_for(state, duration, release, 0.0, error=error, debug=debug, other=other)
    return None if limit is None else limit.reason


def seen_state(slow_above=math.inf):
    state = KeyState(0.0, slow_above)
    state.firsts = 1
    return state


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, None),
        ({"error": True}, Reason.ERROR),
        ({"error": True, "debug": True}, Reason.DEBUG),
        ({"duration": 2.0}, Reason.SLOW),
        ({"duration": 2.0, "error": True}, Reason.ERROR),
        ({"release": "1.0"}, Reason.RELEASE),
    ],
)
def test_the_first_reason_that_applies(facts, reason):
    always = AlwaysKept(Policy(budget=BUDGET), 0.0)
    assert reason_of(always, seen_state(slow_above=1.0), **facts) is reason


def test_the_first_traces_of_a_key():
    always = AlwaysKept(Policy(budget=BUDGET, always=Always(first=FirstSights(traces=2))), 0.0)
    state = KeyState(0.0, math.inf)
    assert [reason_of(always, state) for _ in range(3)] == [Reason.FIRST_SEEN, Reason.FIRST_SEEN, None]


def test_traces_beyond_max_keys_are_not_first_traces():
    always = AlwaysKept(Policy(budget=BUDGET), 0.0)
    assert reason_of(always, KeyState(0.0, math.inf), other=True) is None


def test_reasons_that_the_policy_does_not_name_do_not_apply():
    always = AlwaysKept(Policy(budget=BUDGET, always=Always(None, None, None, None)), 0.0)
    assert always.limits == []
    facts = {"error": True, "debug": True, "release": "1.0"}
    assert reason_of(always, KeyState(0.0, 0.05), **facts) is None


def test_releases_are_bounded_and_the_oldest_is_forgotten():
    first = FirstSights(traces=0, release_traces=1)
    always = AlwaysKept(Policy(budget=BUDGET, always=Always(first=first), max_releases=2), 0.0)
    assert [always.is_new_release(name, now) for now, name in enumerate(("a", "b", "a", "c"))] == [
        True,
        True,
        False,
        True,
    ]
    assert sorted(always.releases) == ["a", "c"]


def test_first_traces_and_releases_share_one_ceiling():
    first = FirstSights(ceiling=Ceiling(traces_per_second=1), traces=1, release_traces=1)
    always = AlwaysKept(Policy(always=Always(slow=Slow(percentile=None, above=math.inf), first=first)), 0.0)
    always.first.charge(1.0, traces=100.0)
    assert not always.release.has_capacity(0.0)


def test_a_trace_exactly_at_the_threshold_is_not_slow():
    always = AlwaysKept(Policy(budget=BUDGET), 0.0)
    assert reason_of(always, seen_state(slow_above=1.0), duration=1.0) is None
    assert reason_of(always, seen_state(slow_above=1.0), duration=1.001) is Reason.SLOW


def test_a_ceiling_that_is_a_share_is_one_of_the_budget():
    always = AlwaysKept(Policy(budget=BUDGET, always=Always(errors=Ceiling(share=0.5))), 0.0)
    assert always.errors.levels == [0.5 * 100 * CEILING_SECONDS]


def test_a_site_minimum_has_the_ceiling_of_sites():
    ceiling = Ceiling(traces_per_second=3)
    always = AlwaysKept(Policy(site_minimum=0.5, site_ceiling=ceiling), 0.0)
    assert always.site_minimum.reason is Reason.SITE_MINIMUM
    assert always.site_minimum.levels == [3 * CEILING_SECONDS]
    assert always.site_minimum in always.limits
    assert AlwaysKept(Policy(site_ceiling=ceiling), 0.0).site_minimum is None


def test_without_first_sights_neither_keys_nor_releases_have_first_traces():
    always = AlwaysKept(Policy(always=Always(first=None)), 0.0)
    assert always.first_traces == 0
    assert not always.is_new_release("1.0", 0.0)


def release_policy(traces, max_releases=100):
    return Policy(always=Always(first=FirstSights(traces=0, release_traces=traces)), max_releases=max_releases)


def test_the_first_traces_of_each_release_are_counted():
    always = AlwaysKept(release_policy(3), 0.0)
    names = ["1", "1", "2", "1", "1", "2", "2", "2"]
    reasons = [reason_of(always, seen_state(), release=name) for name in names]
    assert [reason is Reason.RELEASE for reason in reasons] == [True, True, True, True, False, True, True, False]


def test_the_release_that_was_seen_longest_ago_makes_way_for_a_new_one():
    always = AlwaysKept(release_policy(1, max_releases=2), 0.0)
    for now, release in enumerate(["old", "kept", "old", "new"]):
        always.limit_for(seen_state(), 0.1, release, float(now), error=False, debug=False, other=False)
    assert sorted(always.releases) == ["new", "old"]
