"""What a backend's advice changes in the thresholds of a plan."""

from types import SimpleNamespace

import pytest

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Policy
from otelwp_agent.sampling.advice import SamplingAdvice
from otelwp_agent.sampling.consistent import ALWAYS, probability_of, threshold_near

RARE = threshold_near(0.001)


@pytest.fixture
def controller():
    controller = Controller(Policy(), 0.0)
    controller.advices.put("managed", SamplingAdvice(traces_per_second=20), until=10.0)
    return controller


def state(traffic, adjusted_rate, weight_rate, threshold=ALWAYS):
    return SimpleNamespace(traffic=traffic, adjusted_rate=adjusted_rate, weight_rate=weight_rate, threshold=threshold)


def test_advice_is_about_all_traces_also_those_that_senders_did_not_send(controller):
    states = [state(100.0, 2.0, 1.0), state(50.0, 3.0, 0.5), state(7.0, 1.0, 0.0)]
    controller._follow_advices(states, 1.0)
    thresholds = [each.threshold for each in states]
    assert [probability_of(each) for each in thresholds] == [pytest.approx(20 / 500, rel=1e-3)] * 3
    assert controller.key_states.new_threshold == thresholds[0]


def test_advice_never_lowers_a_threshold(controller):
    states = [state(100.0, 1.0, 1.0, RARE)]
    controller.key_states.new_threshold = RARE
    controller._follow_advices(states, 1.0)
    assert (states[0].threshold, controller.key_states.new_threshold) == (RARE, RARE)


def test_advice_ends_at_its_time(controller):
    states = [state(100.0, 1.0, 1.0)]
    controller._follow_advices(states, 10.0)
    assert states[0].threshold == ALWAYS
