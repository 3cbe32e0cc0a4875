import json
import random

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.explain import explain
from otelwp_agent.sampling.adaptive.policy import Budget, Policy
from otelwp_agent.sampling.adaptive.trace import OTHER, Trace


def fed(policy, rates, seconds=30, **fields):
    """Return a controller after so many seconds of traffic: traces a second by key."""
    dice = random.Random(7)
    controller = Controller(policy, 0.0)
    for tenth in range(seconds * 10):
        now = tenth / 10
        for key, rate in rates.items():
            for _ in range(int(rate / 10) + (dice.random() < rate / 10 % 1)):
                trace = Trace(dice.getrandbits(56), key=(key,), duration=dice.lognormvariate(-2, 0.5), **fields)
                controller.decide(trace, now)
        if tenth % 10 == 9:
            controller.tick(now)
    return controller


def by_key(found):
    return {"/".join(key["key"]): key for key in found["keys"]}


def test_heavy_and_rare_keys():
    controller = fed(Policy(Budget.traces_per_second(20)), {"heavy": 200, "rare": 0.5})
    found = explain(controller, 30.0, 10)
    keys = by_key(found)
    assert found["budget"] == {"rate": 20, "unit": "traces"}
    assert list(keys) == ["heavy", "rare"]
    heavy, rare = keys["heavy"], keys["rare"]
    value, low, high = heavy["rate"]
    assert low < 200 < high
    assert low < value < high
    assert 0.01 < heavy["probability"] < 0.2
    assert 0.01 < heavy["kept_share"] < 0.3
    assert heavy["why"].startswith("reduced: its share of the budget is ")
    assert heavy["why"].endswith(" traces/s")
    assert rare["probability"] == 1
    assert rare["why"].startswith("all traces kept: its ")
    assert heavy["percentiles"]["50"][1] < 0.135 < heavy["percentiles"]["50"][2]
    assert heavy["error_ratio"][0] == 0
    json.dumps(found, allow_nan=False)


def test_only_the_heaviest_are_explained():
    controller = fed(Policy(Budget.traces_per_second(20)), {"a": 5, "b": 50, "c": 20})
    found = explain(controller, 30.0, 2)
    assert list(by_key(found)) == ["b", "c"]
    assert found["keys_known"] == 3


def test_a_key_with_a_budget_of_its_own():
    policy = Policy(Budget.traces_per_second(100), key_budget=Budget.traces_per_second(5))
    found = by_key(explain(fed(policy, {"a": 50}), 30.0, 9))
    assert found["a"]["why"].startswith("limited by target_per_key: 5 of ")


def test_too_many_keys():
    controller = fed(Policy(Budget.traces_per_second(10), max_keys=1), {"a": 20, "b": 20})
    found = by_key(explain(controller, 30.0, 9))
    assert "one of more than 1 keys, which share one probability; " in found["/".join(OTHER)]["why"]


def test_nothing_known():
    found = explain(Controller(Policy(), 0.0), 0.0, 9)
    assert found["keys"] == []
    assert found["budget"] is None
    assert found["spent_last_minute"] is None
    controller = Controller(Policy(Budget.traces_per_second(10)), 0.0)
    controller.decide(Trace(1, key=("new",)), 0.0)
    new = by_key(explain(controller, 0.0, 9))["new"]
    assert new["why"] == "new: not measured yet"
    json.dumps(new, allow_nan=False)


def test_no_budget():
    found = by_key(explain(fed(Policy(), {"a": 5}), 30.0, 9))
    assert found["a"]["why"] == "all traces kept: there is no budget"
    assert found["a"]["kept_share"] == 1


def test_all_of_it_is_errors_that_are_always_kept():
    found = by_key(explain(fed(Policy(Budget.traces_per_second(1000)), {"a": 5}, error=True), 30.0, 9))
    assert found["a"]["error_ratio"] == [1, 1, 1]
    assert found["a"]["why"] == "all traces kept: no recent trace was decided by probability"
