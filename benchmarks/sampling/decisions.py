"""Measure decisions of adaptive sampling: CPU microseconds each, milliseconds per tick, memory of 10 000 keys.

Run: `.venv/bin/python benchmarks/sampling/decisions.py` (about ten seconds).
"""

from __future__ import annotations

import random
import time
import tracemalloc

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Policy, SiteRule, Slow
from otelwp_agent.sampling.adaptive.trace import Trace

TRACES = 50_000
ROUNDS = 3
SLICES = 10
BUDGET = Budget.spans_per_second(50_000)
RULES = (SiteRule(0.001, above=10_000 / 3600),)
CASES = {
    "errors, slow learned": Policy(budget=BUDGET),
    "errors, slow above 2 s": Policy(budget=BUDGET, always=Always(slow=Slow(percentile=None, above=2.0))),
    "the first, with rules by site": Policy(budget=BUDGET, site_rules=RULES, site_minimum=1 / 60),
}


def traces(number: int, keys: int) -> list[Trace]:
    """Return traces of 100 spans, 2 % of them with errors; keys have a Zipf distribution."""
    dice = random.Random(1)
    names = [("shop", "POST", f"/{index}/of/a/route/that/has/a/long/name") for index in range(keys)]
    return [
        Trace(
            dice.getrandbits(56),
            key=key,
            site=f"site{dice.randrange(50)}.example",
            spans=100,
            bytes=50_000,
            duration=dice.lognormvariate(-1, 0.5),
            error=dice.random() < 0.02,
            release="shop@1",
        )
        for key in dice.choices(names, [1 / rank for rank in range(1, keys + 1)], k=number)
    ]


def decision(policy: Policy, given: list[Trace]) -> float:
    """Return microseconds per decision, best of several rounds; each slice of the traces is one second's traffic."""
    controller = Controller(policy, 0.0)
    best = float("inf")
    now = 0.0
    size = len(given) // SLICES
    for _ in range(ROUNDS):
        spent = 0.0
        for begin in range(0, len(given), size):
            now += 1
            controller.tick(now)
            part = given[begin : begin + size]
            decide = controller.decide
            start = time.process_time()
            for trace in part:
                decide(trace, now)
            spent += time.process_time() - start
        best = min(best, spent / len(given) * 1e6)
    return best


def tick_and_memory(keys: int) -> tuple[float, float]:
    """Return milliseconds per tick, and megabytes of a controller with `keys` keys."""
    names = [("shop", "POST", f"/{index}/of/a/route/that/has/a/long/name") for index in range(keys)]
    dice = random.Random(1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    controller = Controller(Policy(budget=Budget.spans_per_second(300_000)), 0.0)
    for second in range(30):
        for name in names:
            duration = dice.lognormvariate(-2, 1)
            controller.decide(Trace(dice.getrandbits(56), key=name, spans=20, duration=duration), second * 10.0)
        controller.tick(second * 10.0 + 10.0)
    memory = (tracemalloc.get_traced_memory()[0] - before) / 1e6
    tracemalloc.stop()
    best = float("inf")
    for second in range(301, 311):
        start = time.process_time()
        controller.tick(float(second))
        best = min(best, (time.process_time() - start) * 1e3)
    return best, memory


def main() -> None:
    """Print the figures."""
    given = traces(TRACES, 1000)
    for name, policy in CASES.items():
        print(f"{name:32}{decision(policy, given):8.2f} µs a decision, 1 000 keys")
    tick, memory = tick_and_memory(10_000)
    print(f"{'10 000 keys':32}{tick:8.1f} ms a tick, {memory:.1f} MB (of names and state)")


if __name__ == "__main__":
    main()
