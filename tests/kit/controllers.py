"""A sampling controller and traffic for it."""

from __future__ import annotations

import random

from otelwp_agent.sampling.adaptive.controller import (
    Controller,
)
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy, Unit
from otelwp_agent.sampling.adaptive.trace import Trace

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
