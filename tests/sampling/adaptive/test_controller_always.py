import random

import pytest

from otelwp_agent.sampling.adaptive.controller import (
    CERTAIN_HALF_LIFE,
    LEARN_ALL,
    Controller,
)
from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling, FirstSights, Policy, Slow
from otelwp_agent.sampling.adaptive.trace import Decision, Reason, Trace
from otelwp_agent.sampling.consistent import NEVER, threshold_of
from tests.kit.controllers import KEY, NOTHING, always, feed, fresh, kept


def test_always_kept_traces_have_a_reason():
    controller = Controller(Policy(budget=Budget.spans_per_second(100)), 0.0)
    controller.decide(Trace(0, key=KEY), 0.0)
    for facts, reason in (
        ({"error": True}, "error"),
        ({"debug": True, "error": True}, "debug"),
        ({"key": ("new",)}, "first_seen"),
        ({"release": "shop@2"}, "release"),
    ):
        decision = controller.decide(Trace(0, **{"key": KEY, **facts}), 0.0)
        assert decision == Decision(keep=True, threshold=None, reason=reason)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ({"errors": Ceiling(traces_per_second=2)}, {"error": True}),
        ({"debug": Ceiling(traces_per_second=2)}, {"debug": True}),
        ({"slow": Slow(Ceiling(traces_per_second=2), above=1.0, percentile=None)}, {"duration": 1.5}),
        ({"first": FirstSights(Ceiling(traces_per_second=2), traces=10**6)}, {}),
        ({"first": FirstSights(Ceiling(traces_per_second=2), traces=0, release_traces=10**6)}, {"release": "1"}),
    ],
)
def test_above_a_ceiling_probability_decides(kind, facts):
    policy = Policy(budget=Budget.traces_per_second(20), always=always(**kind))
    controller = Controller(policy, 0.0)
    decided = feed(controller, 60, {KEY: 200}, **facts)
    certain = [decision for _, decision in decided if decision.threshold is None]
    assert len(certain) == pytest.approx(2 * 60 + 2 * CEILING_SECONDS, abs=3)
    assert all(decision.keep for decision in certain)
    others = [(trace, decision) for trace, decision in decided if decision.threshold is not None]
    assert all(decision.keep == (trace.randomness >= decision.threshold) for trace, decision in others)
    assert kept(others) > 10 * 60
    assert controller.always.limits[0].over == len(others)


def test_a_disabled_rule_is_decided_by_probability():
    controller = Controller(Policy(always=NOTHING), 0.0)
    decision = controller.decide(Trace(0, key=KEY, error=True, debug=True, duration=99.0, release="1"), 0.0)
    assert decision == Decision(keep=True, threshold=0, reason="budget")


def test_slow_is_learned_for_each_key():
    policy = Policy(always=always(slow=Slow(percentile=95.0, min_samples=200)))
    controller = Controller(policy, 0.0)
    dice = random.Random(2)
    reasons = {("fast",): [], ("slow",): []}
    for at in range(6000):
        for key, median in ((("fast",), 0.01), (("slow",), 1.0)):
            trace = Trace(dice.getrandbits(56), key=key, duration=median * dice.lognormvariate(0, 0.5))
            reasons[key].append(controller.decide(trace, at / 100).reason)
    for key in reasons:
        assert "slow" not in reasons[key][:200]
        assert 0.02 < reasons[key][1000:].count("slow") / 5000 <= 0.055
    assert controller.decide(Trace(0, key=("fast",), duration=0.5), 60.0).reason == "slow"
    assert controller.decide(Trace(0, key=("slow",), duration=0.5), 60.0).reason == "budget"


def test_a_fixed_threshold_holds_beside_a_learned_one():
    controller = Controller(Policy(always=always(slow=Slow(above=2.0, percentile=99.0))), 0.0)
    assert controller.decide(Trace(0, key=KEY, duration=2.5), 0.0).reason == "slow"
    assert controller.decide(Trace(0, key=KEY, duration=1.5), 0.0).reason == "budget"


def test_first_sights_are_counted():
    controller = Controller(Policy(always=always(first=FirstSights(traces=3, release_traces=2))), 0.0)
    reasons = [controller.decide(Trace(0, key=KEY, release="1"), 0.0).reason for _ in range(7)]
    assert reasons == ["first_seen"] * 3 + ["release"] * 2 + ["budget"] * 2


def test_first_sights_of_keys_and_releases_share_a_ceiling():
    policy = Policy(always=always(first=FirstSights(Ceiling(traces_per_second=1), traces=4, release_traces=100)))
    controller = Controller(policy, 0.0)
    reasons = [controller.decide(Trace(0, key=KEY, release="1"), 0.0).reason for _ in range(7)]
    assert reasons == ["first_seen"] * 4 + ["release"] + ["budget"] * 2


def test_releases_are_bounded():
    controller = Controller(Policy(max_releases=5), 0.0)
    for at in range(50):
        controller.decide(Trace(0, key=KEY, release=str(at)), float(at))
    assert sorted(controller.always.releases) == ["45", "46", "47", "48", "49"]


def test_what_is_kept_for_certain_is_planned_and_charged():
    controller, state = fresh(errors=Ceiling(share=0.5))
    assert controller.decide(Trace(0, key=KEY, spans=4, error=True), 100.0).reason == "error"
    assert controller.always.errors.levels == [0.5 * 100 * CEILING_SECONDS - 4]
    assert (controller.certain, controller.guard.spent, state.weight) == (4, 4, 0)
    before = controller.certain_rate
    controller.tick(102.0)
    assert controller.certain == 0
    assert controller.certain_rate == pytest.approx(before + (1 - 0.5 ** (2 / CERTAIN_HALF_LIFE)) * (4 / 2 - before))


def test_an_error_that_the_minute_cannot_bear_is_left_to_chance():
    controller, _ = fresh(errors=Ceiling(share=1.0))
    controller.guard.spend(6598)
    assert controller.decide(Trace(NEVER - 1, key=KEY, spans=5, error=True), 100.0) == Decision(
        keep=False, threshold=NEVER, reason=Reason.GUARD
    )
    assert controller.always.errors.over == 1
    assert controller.guarded == 1
    assert controller.always.errors.levels == [100 * CEILING_SECONDS]


def test_with_a_fixed_threshold_alone_nothing_is_learned():
    controller = Controller(Policy(always=always(slow=Slow(above=2.0, percentile=None))), 0.0)
    for _ in range(300):
        controller.decide(Trace(0, key=KEY, duration=0.1), 0.0)
    assert controller.decide(Trace(0, key=KEY, duration=0.5), 0.0).reason == "budget"
    assert dict(controller.keys())[KEY].durations is None
    assert dict(controller.keys())[KEY].arrived == 301


def test_a_release_counts_even_if_the_trace_has_an_error_that_is_left_to_chance():
    controller = Controller(Policy(always=always(first=FirstSights(traces=0, release_traces=1))), 0.0)
    assert controller.decide(Trace(0, key=KEY, error=True, release="1"), 7.0).reason == "release"
    assert controller.always.releases == {"1": [1, 7.0]}


def test_after_the_first_thousand_traces_durations_are_learned_of_an_eighth():
    controller = Controller(Policy(always=always(slow=Slow(percentile=99.0))), 0.0)
    controller.decide(Trace(1, key=KEY), 0.0)
    state = dict(controller.keys())[KEY]
    state.arrived = LEARN_ALL - 2
    totals = []
    for randomness in (1, 1, 8, 9, 15, 16):
        controller.decide(Trace(randomness, key=KEY, duration=0.1), 0.0)
        totals.append(state.durations.total)
    assert totals == [2, 2, 3, 3, 3, 4]


def test_what_is_kept_for_certain_adds_up_and_stands_for_what_came():
    controller, state = fresh(errors=Ceiling(traces_per_second=100))
    for _ in range(2):
        controller.decide(Trace(NEVER - 1, threshold_of(0.25), key=KEY, spans=4, error=True), 100.0)
    assert (controller.certain, state.tally.errors) == (8, 8)


def test_every_trace_that_the_minute_cannot_bear_is_counted():
    controller, _ = fresh()
    controller.guard.spend(6600)
    for number in range(1, 4):
        controller.decide(Trace(NEVER - 1, key=KEY), 100.0)
        assert controller.guarded == number
