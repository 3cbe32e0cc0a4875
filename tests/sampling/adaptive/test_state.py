import json
import random
import tracemalloc

import pytest

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Budget, Policy, SiteRule
from otelwp_agent.sampling.adaptive.reporting import report
from otelwp_agent.sampling.adaptive.state import restore, state_of
from otelwp_agent.sampling.adaptive.trace import Trace

POLICY = Policy(budget=Budget.spans_per_second(500), site_rules=(SiteRule(0.5, above=1.0),), site_minimum=0.1)


def traces(number, seed=1, keys=20):
    dice = random.Random(seed)
    for at in range(number):
        yield (
            at / 100,
            Trace(
                dice.getrandbits(56),
                key=("shop", f"/{dice.randrange(keys)}"),
                site=f"s{dice.randrange(5)}",
                spans=dice.randrange(1, 40),
                duration=dice.lognormvariate(-2, 1),
                error=dice.random() < 0.05,
                release=f"v{at // 1500}",
            ),
        )


def run(controller, seed=1, begin=0.0, number=4000):
    decided = []
    for now, trace in traces(number, seed):
        decided.append(controller.decide(trace, begin + now))
        if len(decided) % 100 == 0:
            controller.tick(begin + now)
    return decided


def restarted(controller, now, policy=POLICY, begin=1e6):
    other = Controller(policy, begin)
    restore(other, json.loads(json.dumps(state_of(controller, now))), begin)
    return other


def test_a_restart_keeps_all_measurements():
    controller = Controller(POLICY, 0.0)
    run(controller)
    other = restarted(controller, 40.0)
    assert dict(other.keys()).keys() == dict(controller.keys()).keys()
    for key, state in controller.key_states:
        assert other.key_states.states[key].traffic == state.traffic
        assert other.key_states.states[key].slow_above == state.slow_above
        assert report(other, key, 1e6) == report(controller, key, 40.0)


def test_after_a_restart_the_same_is_decided():
    controller = Controller(POLICY, 0.0)
    run(controller)
    other = restarted(controller, 40.0, begin=40.0)
    controller.plan(40.0)
    assert run(other, seed=2, begin=40.0) == run(controller, seed=2, begin=40.0)


def test_nothing_is_new_after_a_restart():
    controller = Controller(POLICY, 0.0)
    run(controller)
    reasons = {decision.reason for decision in run(restarted(controller, 40.0), seed=1, begin=1e6)}
    assert "first_seen" not in reasons
    assert "release" not in reasons


def test_with_another_unit_rates_are_measured_again():
    controller = Controller(POLICY, 0.0)
    run(controller)
    other = restarted(controller, 40.0, Policy(budget=Budget.bytes_per_day(1)))
    assert all(state.weight_rate == 0 and state.threshold == 0 for _, state in other.key_states)
    assert other.guard.spent == 0


def test_smaller_bounds_hold():
    controller = Controller(POLICY, 0.0)
    run(controller)
    other = restarted(controller, 40.0, Policy(max_keys=3, max_sites=2, max_releases=1))
    assert len(other.key_states.states) == 3
    assert len(other.sites.states) == 2
    assert len(other.always.releases) == 1


@pytest.mark.parametrize(
    "data", [None, [], {}, {"version": 99}, {"version": 1}, {"version": 1, "keys": [1]}, "text", {"version": "1"}]
)
def test_an_invalid_state_is_refused(data):
    with pytest.raises(ValueError, match="sampler state"):
        restore(Controller(POLICY, 0.0), data, 0.0)


def test_a_damaged_state_is_refused():
    controller = Controller(POLICY, 0.0)
    run(controller)
    data = state_of(controller, 40.0)
    data["keys"][0][1]["tally"] = [1, 2]
    with pytest.raises(ValueError, match="is invalid"):
        restore(Controller(POLICY, 0.0), data, 0.0)


def test_ten_thousand_keys_fit_in_20_mb():
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    controller = Controller(POLICY, 0.0)
    dice = random.Random(1)
    now = 0.0
    for turn in range(4):
        for number in range(10_000):
            key = ("shop", "POST", f"/{number}/of/a/route/that/has/a/long/name")
            trace = Trace(dice.getrandbits(56), key=key, duration=dice.lognormvariate(-2, 1), spans=20)
            controller.decide(trace, now)
        now += 200.0
        controller.tick(now)
        assert turn > 2 or len(controller.key_states.states) == 10_000
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert size < 20e6
