"""Measure the coverage of confidence intervals: seeded runs of a controller on traffic with known true values.

Each run samples half a minute of a shop with three routes (heavy, medium and rare traffic) and a burst; errors and slow
traces are kept up to ceilings that are too low for all of them. Then every estimate (totals, error ratios, percentiles)
is compared with the true value. The result is how often the true value is inside the 95 % interval.

Run: `.venv/bin/python benchmarks/sampling/coverage.py` (1 000 runs, about 20 seconds). `make test` does 300.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Ceiling, Policy, Slow
from otelwp_agent.sampling.adaptive.reporting import report
from otelwp_agent.sampling.adaptive.trace import Trace

RUNS = 1000
SECONDS = 30
RATES = {("heavy",): 40.0, ("middle",): 8.0, ("rare",): 0.7}
"""Traces per second by key."""
BUDGET = 10.0
BURST = (12, 15)
PERCENTILES = (50.0, 90.0, 99.0)
POLICY = Policy(
    budget=Budget.traces_per_second(BUDGET),
    always=Always(errors=Ceiling(share=0.15), slow=Slow(Ceiling(share=0.05), above=1.2, percentile=None)),
)


@dataclass
class Truth:
    """True values of one key."""

    durations: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile(self, percent: float) -> float:
        """Return the smallest duration that `percent` of all do not exceed."""
        return sorted(self.durations)[max(math.ceil(len(self.durations) * percent / 100) - 1, 0)]


def run(seed: int) -> tuple[Controller, dict[tuple[str, ...], Truth]]:
    """Sample one run; return the controller, and the true values of each key."""
    dice = random.Random(seed)
    controller = Controller(POLICY, 0.0)
    truth = {key: Truth() for key in RATES}
    keys, rates = list(RATES), list(RATES.values())
    errors = dice.uniform(0.005, 0.2)
    now, tick = 0.0, 1.0
    while True:
        now += dice.expovariate(sum(rates) * (4 if BURST[0] <= now < BURST[1] else 1))
        if now >= SECONDS:
            break
        if now >= tick:
            controller.tick(tick)
            tick += 1
        (key,) = dice.choices(keys, rates)
        trace = Trace(dice.getrandbits(56), key=key, duration=dice.lognormvariate(-1.5, 0.8))
        trace.error = dice.random() < errors
        truth[key].durations.append(trace.duration)
        truth[key].errors += trace.error
        controller.decide(trace, now)
    return controller, truth


def covered(runs: int = RUNS) -> dict[str, float]:
    """Return, for each kind of estimate, how often the true value is inside its interval."""
    inside: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for seed in range(runs):
        controller, truths = run(seed)
        for key, truth in truths.items():
            if not truth.durations:
                continue
            found = report(controller, key, SECONDS, PERCENTILES)
            number = len(truth.durations)
            facts = [("total", found.traces, number), ("error ratio", found.error_ratio, truth.errors / number)]
            facts += [
                (f"p{percent:.0f}", found.percentiles[percent], truth.percentile(percent)) for percent in PERCENTILES
            ]
            for what, estimate, fact in facts:
                name = f"{key[0]}: {what}"
                tried[name] += 1
                inside[name] += estimate.low - 1e-9 <= fact <= estimate.high + 1e-9
    return {name: inside[name] / tried[name] for name in sorted(tried)}


if __name__ == "__main__":
    for name, part in covered(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS).items():
        print(f"{name:22}{part:8.1%}")
