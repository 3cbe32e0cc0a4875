"""Adaptive sampling on seeded traffic, beside Refinery's formula: what was spent, and what was kept of what.

Run: `.venv/bin/python benchmarks/sampling/simulate.py`. With `--plot` it draws docs/images/adaptive-simulation.png,
which needs matplotlib (`pip install matplotlib`: it is no dependency of the agent). The same seed gives the same
numbers everywhere; tests/model/adaptive/test_simulation.py holds them.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parent))

from refinery import EmaThroughput
from traffic import ALL_BURST, ERRORS, INCIDENT, RARE, RATE, RELEASE, ROUTE_BURST, SECONDS, routes, traffic

from otelwp_agent.model.adaptive.controller import Controller
from otelwp_agent.model.adaptive.policy import Always, Budget, Ceiling, Policy, Slow
from otelwp_agent.model.adaptive.trace import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.adaptive.trace import Key, Trace

BUDGET = 500.0
"""Spans a second: about a fifth of what arrives when nothing happens."""
ERROR_SHARE = 0.4
MINUTE = 60
WARM_UP = 60
"""Seconds that are not judged: both begin without knowing anything."""
PICTURE = Path(__file__).resolve().parents[2] / "docs/images/adaptive-simulation.png"


@dataclass
class Outcome:
    """What a sampler did to the traffic."""

    name: str
    offered: list[int] = field(default_factory=lambda: [0] * SECONDS)
    """Spans in each second."""
    spent: list[int] = field(default_factory=lambda: [0] * SECONDS)
    errors: list[int] = field(default_factory=lambda: [0] * SECONDS)
    """Spans of traces with errors in each second, and how many of them were kept."""
    errors_kept: list[int] = field(default_factory=lambda: [0] * SECONDS)
    seen: Counter[str] = field(default_factory=Counter)
    """Traces by route, and how many of them were kept; after the warm-up."""
    kept: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def book(self, now: float, trace: Trace, *, keep: bool) -> None:
        """Count a trace."""
        second = int(now)
        self.offered[second] += trace.spans
        self.spent[second] += keep * trace.spans
        self.errors[second] += trace.error * trace.spans
        self.errors_kept[second] += (trace.error and keep) * trace.spans
        if now >= WARM_UP:
            self.seen[trace.key[1]] += 1
            self.kept[trace.key[1]] += keep

    def minutes(self) -> list[float]:
        """Return what each minute cost, of the budget; sliding by a second, after the warm-up."""
        return [
            sum(self.spent[end - MINUTE : end]) / (MINUTE * BUDGET) for end in range(WARM_UP + MINUTE, SECONDS + 1)
        ]

    @property
    def budget_error(self) -> float:
        """By how much a minute misses the budget, of the budget, in the mean."""
        minutes = self.minutes()
        return sum(abs(minute - 1) for minute in minutes) / len(minutes)

    @property
    def overshoot(self) -> float:
        """What the dearest minute costs, of the budget."""
        return max(self.minutes())

    def rare_kept(self, names: set[str]) -> float:
        """Return the part of rare routes' traces that was kept."""
        return sum(self.kept[name] for name in names) / sum(self.seen[name] for name in names)


def policy() -> Policy:
    """Return what ours is told to do: the budget, errors up to a ceiling, slow traces and first sights."""
    always = Always(errors=Ceiling(share=ERROR_SHARE), slow=Slow(ceiling=Ceiling(share=0.1), percentile=99))
    return Policy(budget=Budget.spans_per_second(BUDGET), always=always)


def ours() -> Callable[[float, Trace], tuple[bool, str]]:
    """Return our sampler."""
    controller = Controller(policy(), 0.0)
    ticks = 0

    def decide(now: float, trace: Trace) -> tuple[bool, str]:
        nonlocal ticks
        if now >= ticks + 1:
            ticks = int(now)
            controller.tick(float(ticks))
        decision = controller.decide(trace, now)
        return decision.keep, decision.reason

    return decide


def refinery(*, whole: bool = True) -> Callable[[float, Trace], tuple[bool, str]]:
    """Return Refinery's; errors are keys of their own, as its documentation advises."""
    sampler = EmaThroughput(BUDGET, whole=whole)

    def decide(now: float, trace: Trace) -> tuple[bool, str]:
        rate = sampler.rate(f"{trace.key[1]} {'500' if trace.error else '200'}", trace.spans, now)
        return trace.randomness < (1 << 56) / rate, Reason.BUDGET

    return decide


def run(name: str, decide: Callable[[float, Trace], tuple[bool, str]], seed: int = 1) -> Outcome:
    """Give a sampler the traffic."""
    outcome = Outcome(name)
    for now, trace in traffic(seed):
        keep, reason = decide(now, trace)
        outcome.book(now, trace, keep=keep)
        outcome.reasons[f"{'kept' if keep else 'dropped'}: {reason}"] += 1
    return outcome


def rare_routes(seed: int = 1) -> set[str]:
    """Return the routes with less than three traces a minute."""
    return {route.name for route in routes(seed) if route.weight * RATE < RARE}


def errors_up_to_ceiling(outcome: Outcome) -> float:
    """Return the least that a ten seconds' span of the incident kept of its errors, or of their ceiling if lower."""
    worst = 1.0
    for begin in range(INCIDENT[0], INCIDENT[1], 10):
        there, kept = (sum(spans[begin : begin + 10]) for spans in (outcome.errors, outcome.errors_kept))
        worst = min(worst, kept / min(there, ERROR_SHARE * BUDGET * 10))
    return worst


def main() -> None:
    """Print the figures, and draw them if asked to."""
    outcomes = [
        run("adaptive_sampling", ours()),
        run("EMA, as Refinery has it", refinery()),
        run("the same with real rates", refinery(whole=False)),
    ]
    rare = rare_routes()
    print(f"{'':26}{'budget error':>14}{'dearest minute':>16}{'rare kept':>11}{'errors up to ceiling':>22}")
    for outcome in outcomes:
        print(
            f"{outcome.name:26}{outcome.budget_error:14.1%}{outcome.overshoot:16.1%}{outcome.rare_kept(rare):11.1%}"
            f"{errors_up_to_ceiling(outcome):22.1%}"
        )
    print(*(f"{reason}: {count}" for reason, count in sorted(outcomes[0].reasons.items())), sep="\n")
    if "--plot" in sys.argv:
        plot(outcomes[0], outcomes[1])


if __name__ == "__main__":
    main()
