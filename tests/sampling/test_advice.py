import math

import pytest

from otelwp_agent.sampling.advice import Advices, SamplingAdvice
from otelwp_agent.sampling.consistent import ALWAYS, NEVER, probability_of


@pytest.mark.parametrize(
    ("advice", "traffic", "probability"),
    [
        (SamplingAdvice(), 1000.0, 1.0),
        (SamplingAdvice(rate=0.25), 0.0, 0.25),
        (SamplingAdvice(traces_per_second=10), 0.0, 1.0),
        (SamplingAdvice(traces_per_second=10), 40.0, 0.25),
        (SamplingAdvice(traces_per_second=10), 5.0, 1.0),
        (SamplingAdvice(rate=0.1, traces_per_second=10), 40.0, 0.1),
        (SamplingAdvice(rate=0.0), 40.0, 0.0),
    ],
)
def test_both_limits_hold(advice, traffic, probability):
    assert advice.probability(traffic) == probability
    advices = Advices()
    advices.put("managed", advice, math.inf)
    assert probability_of(advices.threshold(traffic, 0.0)) == pytest.approx(probability, rel=1e-3)


def test_the_strictest_source_counts_until_its_advice_expires():
    advices = Advices()
    advices.put("managed", SamplingAdvice(rate=0.1), until=10.0)
    advices.put("managed/us", SamplingAdvice(rate=0.5), until=20.0)
    assert probability_of(advices.threshold(1.0, 9.9)) == pytest.approx(0.1, rel=1e-3)
    assert probability_of(advices.threshold(1.0, 10.0)) == pytest.approx(0.5, rel=1e-3)
    assert advices.threshold(1.0, 20.0) == ALWAYS
    assert not advices


def test_a_source_replaces_and_withdraws_its_advice():
    advices = Advices()
    advices.put("managed", SamplingAdvice(rate=0.0), until=10.0)
    assert advices.threshold(1.0, 0.0) == NEVER
    advices.put("managed", SamplingAdvice(rate=0.5), until=10.0)
    assert probability_of(advices.threshold(1.0, 0.0)) == pytest.approx(0.5, rel=1e-3)
    advices.put("managed", SamplingAdvice(), until=10.0)
    assert not advices
