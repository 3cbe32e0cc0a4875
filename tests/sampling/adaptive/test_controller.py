import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sampling.adaptive.controller import (
    Controller,
)
from otelwp_agent.sampling.adaptive.policy import Budget, Ceiling, FirstSights, Policy, SiteRule
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.sampling.adaptive.trace import OTHER, Decision, Reason, Trace
from otelwp_agent.sampling.advice import SamplingAdvice
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, adjusted_count, lowered, threshold_near, threshold_of
from tests.kit.controllers import KEY, NOTHING, UNITS, always, feed, fresh, kept


def test_without_a_budget_everything_is_kept_by_chance():
    controller = Controller(Policy(always=NOTHING), 0.0)
    decided = feed(controller, 3, {KEY: 500})
    assert all(decision == Decision(keep=True, threshold=0, reason="budget") for _, decision in decided)


@pytest.mark.parametrize(
    ("budget", "facts"),
    [
        (Budget.traces_per_second(20), {}),
        (Budget.spans_per_second(200), {"spans": 10}),
        (Budget.bytes_per_day(86_400 * 20_000), {"bytes": 1000}),
    ],
)
def test_a_budget_in_any_unit(budget, facts):
    controller = Controller(Policy(budget=budget, always=NOTHING), 0.0)
    feed(controller, 30, {KEY: 400}, **facts)
    assert kept(feed(controller, 60, {KEY: 400}, begin=30, **facts)) == pytest.approx(20 * 60, rel=0.05)
    assert controller.probability(KEY) == pytest.approx(20 / 400, rel=0.2)


def test_rare_keys_whole_and_heavy_ones_by_power():
    rates = {("a",): 400, ("b",): 100, ("rare",): 1}
    for power, ratio in ((0.0, 1), (0.5, 2), (1.0, 4)):
        controller = Controller(Policy(budget=Budget.traces_per_second(50), always=NOTHING, power=power), 0.0)
        feed(controller, 30, rates)
        assert controller.probability(("rare",)) == 1 or power == 1.0
        share = 400 * controller.probability(("a",)) / (100 * controller.probability(("b",)))
        assert share == pytest.approx(ratio, rel=0.1)


def test_a_key_may_have_a_budget_of_its_own():
    policy = Policy(budget=Budget.traces_per_second(100), key_budget=Budget.traces_per_second(10), always=NOTHING)
    controller = Controller(policy, 0.0)
    feed(controller, 20, {("a",): 50, ("b",): 5})
    assert controller.probability(("a",)) == pytest.approx(0.2, rel=0.05)
    assert controller.probability(("b",)) == 1


def test_a_key_budget_needs_no_other():
    controller = Controller(Policy(key_budget=Budget.spans_per_second(10), always=NOTHING), 0.0)
    feed(controller, 20, {("a",): 5}, spans=20)
    assert controller.probability(("a",)) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("times", [20, 300])
def test_a_burst_costs_no_minute_more_than_110_percent(times):
    controller = Controller(Policy(budget=Budget.spans_per_second(100)), 0.0)
    spent = [0] * 90
    for second in range(90):
        rate = 40 * (times if 60 <= second < 70 else 1)
        for trace, decision in feed(controller, 1, {KEY: rate}, begin=second, dice=random.Random(second), spans=10):
            spent[second] += decision.keep * trace.spans
    assert max(sum(spent[end - 60 : end]) for end in range(60, 91)) <= 6600
    assert sum(spent[62:70]) == pytest.approx(800, rel=0.5), "and a burst is no reason to fall silent"


def test_whole_keys_stay_whole_in_anothers_burst_but_not_in_their_own():
    policy = Policy(budget=Budget.traces_per_second(50), always=NOTHING)
    quiet = {("heavy",): 200, ("rare",): 1, ("sleeper",): 2}
    controller = Controller(policy, 0.0)
    feed(controller, 60, quiet)
    decided = feed(controller, 5, quiet | {("heavy",): 4000}, begin=60)
    rare = [decision.keep for trace, decision in decided if trace.key != ("heavy",)]
    assert sum(rare) >= 0.9 * len(rare)
    feed(controller, 60, quiet, begin=65)
    decided = feed(controller, 1, quiet | {("sleeper",): 4000}, begin=125)
    assert kept(decided) < 50 * 5


def test_a_burst_of_new_keys_keeps_the_budget():
    controller = Controller(Policy(budget=Budget.traces_per_second(10)), 0.0)
    dice = random.Random(3)
    number = sum(controller.decide(Trace(dice.getrandbits(56), key=(str(at),)), at / 1000).keep for at in range(60_000))
    assert number <= 660


def test_a_threshold_is_only_ever_raised():
    controller = Controller(Policy(budget=Budget.traces_per_second(10), always=NOTHING), 0.0)
    feed(controller, 20, {KEY: 100})
    incoming = threshold_of(0.001)
    assert controller.decide(Trace(NEVER - 1, incoming, key=KEY), 20.0) == Decision(
        keep=True, threshold=incoming, reason="incoming"
    )
    decision = controller.decide(Trace(NEVER - 1, threshold_of(0.9), key=KEY), 20.0)
    assert decision.reason == "budget"
    assert decision.threshold > threshold_of(0.9)


def test_traffic_that_was_sampled_before_is_shared_as_it_arrives():
    """100 traces a second represent 1 000, and 20 are to be kept: 2 % of all."""
    controller = Controller(Policy(budget=Budget.traces_per_second(20), always=NOTHING), 0.0)
    dice = random.Random(1)
    incoming = threshold_of(0.1)
    decided = []
    for second in range(60):
        for _ in range(100):
            trace = Trace(dice.randrange(incoming, NEVER), incoming, key=KEY)
            decided.append((second, controller.decide(trace, float(second))))
        controller.tick(second + 1.0)
    assert sum(decision.keep for second, decision in decided if second >= 20) == pytest.approx(20 * 40, rel=0.1)
    assert controller.probability(KEY) == pytest.approx(0.02, rel=0.2)
    count = sum(adjusted_count(decision.threshold) for _, decision in decided if decision.keep)
    assert count == pytest.approx(60_000, rel=0.1)


def test_adjusted_counts_add_up_to_the_truth():
    """During a burst, in which the guard raises thresholds, kept traces represent all traces."""
    errors = []
    for seed in range(30):
        controller = Controller(Policy(budget=Budget.traces_per_second(10), always=NOTHING), 0.0)
        dice = random.Random(seed)
        decided = feed(controller, 10, {("a",): 40, ("b",): 5}, dice=dice)
        decided += feed(controller, 5, {("a",): 800, ("b",): 5}, begin=10, dice=dice)
        decided += feed(controller, 10, {("a",): 40, ("b",): 5}, begin=15, dice=dice)
        counted = sum(adjusted_count(decision.threshold) for _, decision in decided if decision.keep)
        errors.append(counted / len(decided) - 1)
    assert abs(sum(errors) / len(errors)) < 3 * 0.25 / math.sqrt(30)


def fed(budget):
    policy = Policy(budget=Budget.traces_per_second(budget), always=NOTHING)
    controller = Controller(policy, 0.0)
    feed(controller, 10, {("a",): 300, ("b",): 60, ("c",): 2})
    return policy, state_of(controller, 10.0)


HIGH, LOW = fed(50), fed(20)


def like(known):
    policy, state = known
    controller = Controller(policy, 10.0)
    restore(controller, state, 10.0)
    return controller


@given(st.lists(st.tuples(st.integers(0, NEVER - 1), st.sampled_from("abc")), max_size=60), st.randoms())
def test_two_samplers_agree_in_any_order_and_a_third_keeps_a_subset(traces, dice):
    one, two, third = like(HIGH), like(HIGH), like(LOW)
    shuffled = list(traces)
    dice.shuffle(shuffled)
    decided = [
        {(randomness, key): one_of.decide(Trace(randomness, key=(key,)), 10.0).keep for randomness, key in order}
        for one_of, order in ((one, traces), (two, shuffled))
    ]
    assert decided[0] == decided[1]
    for randomness, key in traces:
        if third.decide(Trace(randomness, key=(key,)), 10.0).keep:
            assert decided[0][randomness, key]


def test_downstream_a_lower_rate_keeps_a_subset_of_what_comes():
    first = Controller(Policy(budget=Budget.traces_per_second(50), always=NOTHING), 0.0)
    second = Controller(Policy(budget=Budget.traces_per_second(10), always=NOTHING), 0.0)
    dice = random.Random(4)
    passed, arrived = [], 0
    for at in range(20_000):
        now = at / 400
        for controller in (first, second):
            controller.tick(float(int(now)))
        trace = Trace(dice.getrandbits(56), key=KEY)
        decision = first.decide(trace, now)
        arrived += 1
        if decision.keep:
            trace.threshold = decision.threshold
            again = second.decide(trace, now)
            assert again.threshold >= decision.threshold
            if again.keep:
                passed.append(adjusted_count(again.threshold))
    assert sum(passed) == pytest.approx(arrived, rel=0.15)


def test_too_many_keys_share_one():
    controller = Controller(Policy(budget=Budget.traces_per_second(100), max_keys=50, always=NOTHING), 0.0)
    feed(controller, 25, {(str(number),): 1 for number in range(500)} | {("heavy",): 300})
    known = dict(controller.keys())
    assert len(known) == 51
    assert ("heavy",) in known, "it took the place of a light one"
    assert OTHER in known
    assert controller.probability(("499999",)) == controller.probability(OTHER) < 1


def test_traces_of_untracked_keys_are_not_first_traces():
    controller = Controller(Policy(max_keys=1, always=always(first=FirstSights(traces=5))), 0.0)
    assert controller.decide(Trace(0, key=("a",)), 0.0).reason == "first_seen"
    assert controller.decide(Trace(0, key=("b",)), 0.0).reason == "budget"


def test_a_new_key_gets_what_a_rare_one_would():
    """Nothing is left for rare keys here: a thousand keys share a trace a second."""
    controller = Controller(Policy(budget=Budget.traces_per_second(1), always=NOTHING), 0.0)
    feed(controller, 30, {(str(number),): 1 for number in range(1000)})
    decision = controller.decide(Trace(0, key=("new",)), 30.0)
    assert decision.threshold > 0


def test_nothing_is_kept_above_the_limit_of_a_minute():
    """A single trace costs two minutes of the budget: it is kept, and then nothing for two minutes."""
    controller = Controller(Policy(budget=Budget.spans_per_second(10), always=NOTHING), 0.0)
    assert controller.decide(Trace(NEVER - 1, key=KEY, spans=1200), 0.0).keep
    decision = controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 30.0)
    assert decision == Decision(keep=False, threshold=NEVER, reason=Reason.GUARD)
    assert controller.guarded == 1
    assert controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 61.5).keep


@pytest.mark.parametrize(("budget", "costs", "more"), UNITS)
def test_a_trace_costs_what_the_budget_counts(budget, costs, more):
    controller, state = fresh(Policy(budget=budget, always=NOTHING))
    controller.decide(Trace(0, key=KEY), 100.0)
    spent, tokens, weight = controller.guard.spent, controller.guard.tokens.level, state.weight
    assert controller.decide(Trace(0, key=KEY, spans=5, bytes=700), 100.0).keep
    assert controller.guard.spent == spent + costs
    assert controller.guard.tokens.level == tokens - costs
    assert state.weight == weight + costs
    assert state.adjusted == weight + costs
    controller.decide(Trace(NEVER - 1, threshold_of(0.25), key=KEY, spans=5, bytes=700), 100.0)
    assert state.weight == weight + 2 * costs
    assert state.adjusted == weight + 5 * costs, "it stands for four"


def test_estimates_know_of_errors_that_chance_may_have_missed():
    controller, state = fresh(errors=Ceiling(traces_per_second=1))
    assert not state.tally.errors_missed
    controller.decide(Trace(0, key=KEY, error=True), 100.0)
    assert not state.tally.errors_missed, "it was kept"
    controller.decide(Trace(NEVER - 1, threshold_of(0.5), key=KEY), 100.0)
    assert state.tally.errors_missed, "a sampler before this one may have dropped one"
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY, error=True), 100.0)
    assert state.tally.errors_missed


def test_estimates_know_what_was_left_to_chance():
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY), 100.0)
    assert (state.tally.offered, state.tally.offered_excess) == (0, 0), "it was kept whatever chance says"
    state.threshold = threshold_of(0.25)
    controller.decide(Trace(NEVER - 1, key=KEY), 100.0)
    controller.decide(Trace(0, key=KEY), 100.0)
    assert (state.tally.offered, state.tally.offered_excess) == (2, 2 * (0.75 / 0.25))
    controller.decide(Trace(NEVER - 1, threshold_of(0.5), key=KEY), 100.0)
    assert (state.tally.offered, state.tally.offered_excess) == (4, 4 * (0.75 / 0.25))


def test_a_kept_trace_is_counted_with_all_it_stands_for():
    controller, state = fresh()
    certain = state.tally.certain
    controller.decide(Trace(0, key=KEY, duration=0.5), 100.0)
    assert (state.tally.certain, state.tally.count) == (certain + 1, 0)
    controller.decide(Trace(NEVER - 1, threshold_of(0.125), key=KEY, duration=0.5, error=True), 100.0)
    assert (state.tally.certain, state.tally.count, state.tally.errors) == (certain + 1, 8, 8)


def test_a_randomness_equal_to_the_threshold_is_kept():
    controller, state = fresh()
    state.threshold = threshold_of(0.25)
    assert controller.decide(Trace(state.threshold, key=KEY), 100.0).keep
    assert not controller.decide(Trace(state.threshold - 1, key=KEY), 100.0).keep


@pytest.mark.parametrize("site", ["", "a.example"])
@pytest.mark.parametrize("level", [0.5, 12.5])
def test_a_key_that_is_kept_whole_stays_whole_while_there_are_tokens(site, level):
    policy = Policy(budget=Budget.spans_per_second(100), always=NOTHING, site_rules=(SiteRule(0.5, above=1e9),))
    controller, state = fresh(policy)
    state.threshold = ALWAYS
    trace = Trace(0, key=KEY, site=site)
    assert level < controller.guard.low
    controller.guard.tokens.level = level
    assert controller.decide(trace, 100.0).threshold == ALWAYS
    controller.guard.tokens.level = 0.0
    assert controller.decide(trace, 100.0).threshold == lowered(ALWAYS, controller.guard.factor())


def test_a_new_controller_knows_nothing():
    controller = Controller(Policy(budget=Budget.spans_per_second(100), always=NOTHING), 7.0)
    assert (controller.certain, controller.certain_rate, controller.guarded, controller.ticked) == (0, 0, 0, 7.0)
    assert list(controller.keys()) == []


def planned(power=0.25, certain_rate=0.0, level=0.5, rate=100.0):
    """Plan for a key with a thousand traces a second; return its threshold and that of new keys."""
    controller = Controller(Policy(budget=Budget.traces_per_second(rate), always=NOTHING, power=power), 0.0)
    state = controller.key_states.admit(KEY, 0.0)
    state.traffic = state.weight_rate = state.adjusted_rate = 1000.0
    controller.certain_rate = certain_rate
    controller.guard.tokens.level = level * controller.guard.tokens.capacity
    controller.plan(0.0)
    return state.threshold, controller.key_states.new_threshold


def new_keys(budget):
    """The threshold of a key that gets what is left for one trace a minute."""
    return threshold_near((budget - 1 / 60) / 1000)


def test_the_plan_leaves_out_what_is_kept_for_certain_and_steers_the_tokens_to_half():
    assert planned()[0] == new_keys(100)
    assert planned(certain_rate=20.0)[0] == new_keys(80)
    assert planned(level=0.75)[0] == new_keys(110)
    assert planned(level=0.25)[0] == new_keys(90)
    assert planned(certain_rate=1e6)[0] == new_keys(100 * 0.02)


def test_new_keys_get_what_a_key_with_a_trace_a_minute_would():
    assert planned()[1] == ALWAYS
    assert planned(power=1.0)[1] == threshold_near(100 / (1000 + 1 / 60))


def test_without_traffic_new_keys_are_kept_whole():
    controller = Controller(Policy(budget=Budget.traces_per_second(0.1), always=NOTHING), 0.0)
    controller.tick(1.0)
    assert controller.key_states.new_threshold == ALWAYS


def test_the_smallest_threshold_is_one():
    controller, state = fresh()
    controller.decide(Trace(1, 1, key=KEY), 100.0)
    assert state.tally.offered == pytest.approx(1)


def test_advice_limits_every_key_but_not_the_rules_that_always_keep():
    controller = Controller(Policy(always=always(errors=Ceiling(traces_per_second=1000))), 0.0)
    rates = {("a",): 400, ("b",): 100}
    feed(controller, 10, rates)
    controller.advices.put("managed", SamplingAdvice(rate=0.25), until=60.0)
    feed(controller, 5, rates, begin=10)
    assert controller.probability(("a",)) == controller.probability(("b",)) == pytest.approx(0.25, rel=1e-3)
    assert kept(feed(controller, 20, rates, begin=15)) == pytest.approx(500 * 20 * 0.25, rel=0.1)
    assert controller.probability(("unknown",)) == pytest.approx(0.25, rel=1e-3)
    assert kept(feed(controller, 5, {("a",): 100}, begin=35, error=True)) == 500
    feed(controller, 3, rates, begin=60)
    assert controller.probability(("a",)) == 1.0


def test_advised_traces_per_second_count_all_traces_and_the_budget_still_holds():
    controller = Controller(Policy(budget=Budget.traces_per_second(50), always=NOTHING), 0.0)
    controller.advices.put("managed", SamplingAdvice(traces_per_second=20), until=1e9)
    feed(controller, 60, {("a",): 400, ("b",): 100})
    assert kept(feed(controller, 60, {("a",): 400, ("b",): 100}, begin=60)) == pytest.approx(20 * 60, rel=0.1)
    controller.advices.put("managed", SamplingAdvice(traces_per_second=200), until=1e9)
    feed(controller, 60, {("a",): 400, ("b",): 100}, begin=120)
    assert kept(feed(controller, 60, {("a",): 400, ("b",): 100}, begin=180)) == pytest.approx(50 * 60, rel=0.1)
