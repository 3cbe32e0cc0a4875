import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.sampling.adaptive.controller import (
    CERTAIN_HALF_LIFE,
    ESTIMATES_WINDOW,
    LEARN_ALL,
    SHORTEST_TICK,
    Controller,
)
from otelwp_agent.sampling.adaptive.guard import CEILING_SECONDS
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Ceiling, FirstSights, Policy, SiteRule, Slow, Unit
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.sampling.adaptive.trace import OTHER, Decision, Reason, Trace
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, adjusted_count, lowered, threshold_near, threshold_of

NOTHING = Always(debug=None, errors=None, slow=None, first=None)
KEY = ("shop", "/cart")


def always(**kinds):
    return Always(**{"debug": None, "errors": None, "slow": None, "first": None, **kinds})


def feed(controller, seconds, rates, *, begin=0, dice=None, **facts):
    """Give each key of `rates` that many traces a second, with a tick each second; return (trace, decision) pairs."""
    dice = dice or random.Random(1)
    decided = []
    for second in range(begin, begin + seconds):
        arrivals = []
        for key, rate in rates.items():
            number = int(rate) + (dice.random() < rate % 1)
            arrivals += [(second + dice.random(), key) for _ in range(number)]
        for now, key in sorted(arrivals):
            trace = Trace(dice.getrandbits(56), key=key, **facts)
            decided.append((trace, controller.decide(trace, now)))
        controller.tick(second + 1.0)
    return decided


def kept(decided):
    return sum(decision.keep for _, decision in decided)


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


def test_time_may_go_back_or_leap():
    controller = Controller(Policy(budget=Budget.traces_per_second(10)), 100.0)
    for now in (100.0, 50.0, 101.0, 101.0, 1e7, 99.0):
        controller.decide(Trace(5, key=KEY), now)
        controller.tick(now)
    assert controller.probability(KEY) == 1


def fresh(policy=None, now=100.0, **kinds):
    """A controller with one key, whose very first trace came 90 seconds ago: the last minute has cost nothing."""
    policy = policy or Policy(budget=Budget.spans_per_second(100), always=always(**kinds))
    controller = Controller(policy, now - 90.0)
    controller.decide(Trace(0, key=KEY), now - 90.0)
    controller.tick(now)
    return controller, dict(controller.keys())[KEY]


UNITS = [
    (Budget.traces_per_second(100), 1.0, 0.0),
    (Budget.spans_per_second(100), 5.0, 5.0),
    (Budget(1e6, Unit.BYTES), 700.0, 700.0),
]


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


@pytest.mark.parametrize(("budget", "costs", "more"), UNITS)
def test_late_spans_of_a_kept_trace_are_paid_for_and_planned(budget, costs, more):
    controller, _ = fresh(Policy(budget=budget, always=NOTHING))
    controller.book_late(5, 700)
    controller.book_late(5, 700)
    assert controller.certain == 2 * more
    assert controller.guard.spent == 2 * more
    without = Controller(Policy(key_budget=budget, always=NOTHING), 0.0)
    without.book_late(5, 700)
    assert without.certain == more


def test_spans_that_follow_a_decided_trace_count_for_its_key():
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY), 100.0)
    spent, weight = controller.guard.spent, state.weight
    controller.follow(KEY, 3, 0, kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 3, weight + 3, weight + 3)
    controller.follow(KEY, 3, 0, kept=False)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 3, weight + 6, weight + 6)
    controller.follow(KEY, 3, threshold_of(0.25), kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent + 6, weight + 9, weight + 18)


def test_spans_that_follow_count_only_in_a_budget_of_spans():
    controller, state = fresh(Policy(budget=Budget.traces_per_second(100), always=NOTHING))
    spent = controller.guard.spent
    controller.follow(KEY, 3, 0, kept=True)
    assert (controller.guard.spent, state.weight, state.adjusted) == (spent, 0.0, 0.0)
    without = Controller(Policy(key_budget=Budget.spans_per_second(10), always=NOTHING), 0.0)
    without.follow(KEY, 3, 0, kept=True)
    assert without.key_states.other.weight == 3, "a key that is not known shares the state of the others"


def test_a_late_error_is_admitted_up_to_the_ceiling_of_errors():
    controller, _ = fresh(errors=Ceiling(traces_per_second=2))
    assert [controller.admit_error(5, 700, 100.0) for _ in range(11)] == [True] * 10 + [False]
    assert controller.always.errors.over == 1
    assert [controller.admit_error(5, 700, 101.0) for _ in range(3)] == [True, True, False]
    assert controller.always.errors.over == 2
    assert controller.guard.spent == 0, "the trace itself is booked when it comes back"


def test_a_late_error_is_charged_in_the_unit_of_the_budget():
    controller, _ = fresh(errors=Ceiling(share=0.5))
    assert controller.admit_error(5, 700, 100.0)
    assert controller.always.errors.levels == [0.5 * 100 * CEILING_SECONDS - 5]
    controller.book_rescued(7, 900)
    assert controller.always.errors.levels == [0.5 * 100 * CEILING_SECONDS - 12]
    assert (controller.guard.spent, controller.certain) == (7, 7)


def test_what_comes_back_of_a_late_error_is_no_further_trace():
    controller, _ = fresh(errors=Ceiling(traces_per_second=2))
    controller.book_rescued(7, 900)
    assert controller.always.errors.levels == [2 * CEILING_SECONDS]
    controller, _ = fresh()
    controller.book_rescued(7, 900)
    assert controller.guard.spent == 7, "it is paid for even if errors have no ceiling"


def test_a_late_error_is_refused_without_a_ceiling_or_when_the_minute_is_spent():
    controller, _ = fresh()
    assert not controller.admit_error(1, 100, 100.0)
    controller, _ = fresh(errors=Ceiling(traces_per_second=100))
    controller.guard.spend(6599)
    assert not controller.admit_error(2, 100, 100.0)
    assert controller.admit_error(1, 100, 100.0)
    assert controller.admit_error(2, 100, 161.0), "the minute is over"
    without = Controller(Policy(always=always(errors=Ceiling(traces_per_second=1))), 0.0)
    assert without.admit_error(10**9, 0, 0.0)


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


def test_a_tick_too_soon_after_the_last_changes_nothing():
    controller, state = fresh()
    controller.decide(Trace(0, key=KEY), 100.0)
    controller.decide(Trace(0, key=KEY), 100.0)
    controller.tick(100.0 + 0.9 * SHORTEST_TICK)
    assert (controller.ticked, state.seen) == (100.0, 2)
    controller.tick(100.0 + 1.1 * SHORTEST_TICK)
    assert (controller.ticked, state.seen) == (100.0 + 1.1 * SHORTEST_TICK, 0)


def test_estimates_change_windows_after_five_minutes():
    controller, state = fresh(now=1000.0)
    assert (controller.window_before, controller.window_began) == (910.0, 910.0)
    tally = state.tally
    controller.tick(910.0 + ESTIMATES_WINDOW - 0.5)
    assert state.tally is tally
    controller.tick(910.0 + ESTIMATES_WINDOW)
    assert (controller.window_before, controller.window_began) == (910.0, 910.0 + ESTIMATES_WINDOW)
    assert state.earlier is tally
    assert state.tally is not tally
    controller.tick(910.0 + 2 * ESTIMATES_WINDOW + 7)
    assert (controller.window_before, controller.window_began) == (1210.0, 910.0 + 2 * ESTIMATES_WINDOW + 7)


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


def test_a_guard_that_is_low_lowers_probabilities_between_ticks():
    controller, state = fresh()
    state.threshold = threshold_of(0.5)
    controller.guard.tokens.level = controller.guard.low / 2
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == lowered(threshold_of(0.5), 0.5)
    controller.guard.tokens.level = controller.guard.low / 4
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == lowered(threshold_of(0.5), 0.25)
    controller.guard.tokens.level = controller.guard.low
    assert controller.decide(Trace(0, key=KEY), 100.0).threshold == threshold_of(0.5)


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


def test_an_overdrawn_guard_has_the_probabilities_computed_before_the_next_tick():
    controller, state = fresh()
    for _ in range(100):
        controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.0)
    assert controller.guard.tokens.level < 0
    assert state.threshold == ALWAYS
    controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.19)
    assert (controller.ticked, state.threshold) == (100.0, ALWAYS)
    controller.decide(Trace(NEVER - 1, key=KEY, spans=10), 100.21)
    assert controller.ticked == 100.21
    assert state.threshold > ALWAYS


def test_a_new_controller_knows_nothing():
    controller = Controller(Policy(budget=Budget.spans_per_second(100), always=NOTHING), 7.0)
    assert (controller.certain, controller.certain_rate, controller.guarded, controller.ticked) == (0, 0, 0, 7.0)
    assert list(controller.keys()) == []


def test_with_a_fixed_threshold_alone_nothing_is_learned():
    controller = Controller(Policy(always=always(slow=Slow(above=2.0, percentile=None))), 0.0)
    for _ in range(300):
        controller.decide(Trace(0, key=KEY, duration=0.1), 0.0)
    assert controller.decide(Trace(0, key=KEY, duration=0.5), 0.0).reason == "budget"
    assert dict(controller.keys())[KEY].durations is None
    assert dict(controller.keys())[KEY].arrived == 301


def test_late_errors_are_charged_in_bytes_as_well():
    controller, _ = fresh(Policy(budget=Budget(1e6, Unit.BYTES), always=always(errors=Ceiling(share=0.5))))
    full = 0.5 * 1e6 * CEILING_SECONDS
    assert controller.admit_error(5, 700, 100.0)
    assert controller.always.errors.levels == [full - 700]
    controller.book_rescued(5, 900)
    assert controller.always.errors.levels == [full - 1600]
    assert (controller.guard.spent, controller.certain) == (900, 900)


def overdrawn(level, now=100.25):
    """Decide at `now`, when refilling has brought the tokens to `level`; return when the controller ticked last."""
    controller, _ = fresh()
    controller.guard.tokens.level = level - 25.0  # 100 a second for a quarter of a second
    controller.decide(Trace(NEVER - 1, key=KEY), now)
    return controller.ticked


def test_only_an_overdrawn_guard_has_the_probabilities_computed_early():
    assert overdrawn(0.5) == overdrawn(0.0) == 100.0
    assert overdrawn(-0.5) == 100.25


def test_the_probabilities_are_computed_early_after_a_fifth_of_a_second_and_more_for_many_keys():
    controller, _ = fresh()
    controller._hurry = 0.25
    controller.guard.tokens.level = -1000.0
    controller.decide(Trace(NEVER - 1, key=KEY), 100.25)
    assert controller.ticked == 100.25
    controller, _ = fresh()
    for number in range(2000):
        controller.key_states.admit((str(number),), 100.0)
    controller.tick(101.0)
    controller.guard.tokens.level = -1000.0
    for now, ticked in ((101.39, 101.0), (101.41, 101.41)):
        controller.decide(Trace(NEVER - 1, key=KEY), now)
        assert controller.ticked == ticked


def test_within_one_instant_nothing_is_computed_anew():
    controller, _ = fresh()
    for _ in range(2):
        controller.decide(Trace(NEVER - 1, key=KEY, spans=5000), 100.5)
        assert controller.ticked == 100.0
    assert controller.guard.tokens.level < 0
    controller.decide(Trace(NEVER - 1, key=KEY), 100.6)
    assert controller.ticked == 100.6


def test_a_tick_is_long_enough_after_a_tenth_of_a_second():
    controller = Controller(Policy(), 0.0)
    controller.tick(SHORTEST_TICK)
    assert controller.ticked == SHORTEST_TICK


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


def test_the_smallest_threshold_is_one():
    controller, state = fresh()
    controller.decide(Trace(1, 1, key=KEY), 100.0)
    assert state.tally.offered == pytest.approx(1)


def test_every_trace_that_the_minute_cannot_bear_is_counted():
    controller, _ = fresh()
    controller.guard.spend(6600)
    for number in range(1, 4):
        controller.decide(Trace(NEVER - 1, key=KEY), 100.0)
        assert controller.guarded == number
