"""Simulate adaptive sampling and Refinery's formula on seeded traffic: budget use, and the kept share by kind of trace.

Run: `.venv/bin/python benchmarks/sampling/simulate.py`. With `--plot` it draws docs/images/adaptive-simulation.png, for
which matplotlib must be installed (`pip install matplotlib`; the agent does not need it). A seed gives the same numbers
on every machine; tests/sampling/adaptive/test_simulation.py checks them.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parent))

from refinery import EmaThroughput
from traffic import ALL_BURST, INCIDENT, RARE, RATE, RELEASE, ROUTE_BURST, SECONDS, routes, traffic

from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Ceiling, Policy, Slow
from otelwp_agent.sampling.adaptive.trace import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.sampling.adaptive.trace import Trace

BUDGET = 500.0
"""Spans per second: about a fifth of the normal traffic."""
ERROR_SHARE = 0.4
MINUTE = 60
WARM_UP = 60
"""Seconds at the start that are not evaluated, because the samplers have not learned anything yet."""
RARE_ROUTES = frozenset(route.name for route in routes() if route.weight * RATE < RARE)
PICTURE = Path(__file__).resolve().parents[2] / "docs/images/adaptive-simulation.png"


@dataclass
class Outcome:
    """Result of a sampler on the traffic."""

    name: str
    offered: list[int] = field(default_factory=lambda: [0] * SECONDS)
    """Number of spans in each second."""
    spent: list[int] = field(default_factory=lambda: [0] * SECONDS)
    errors: list[int] = field(default_factory=lambda: [0] * SECONDS)
    """Number of spans of traces with errors in each second; the next field counts the kept ones."""
    errors_kept: list[int] = field(default_factory=lambda: [0] * SECONDS)
    rare: list[int] = field(default_factory=lambda: [0] * SECONDS)
    """Number of traces of rare routes in each second; the next field counts the kept ones."""
    rare_kept: list[int] = field(default_factory=lambda: [0] * SECONDS)
    reasons: Counter[str] = field(default_factory=Counter)

    def book(self, now: float, trace: Trace, *, keep: bool) -> None:
        """Count a trace."""
        second = int(now)
        self.offered[second] += trace.spans
        self.spent[second] += keep * trace.spans
        self.errors[second] += trace.error * trace.spans
        self.errors_kept[second] += (trace.error and keep) * trace.spans
        if trace.key[1] in RARE_ROUTES:
            self.rare[second] += 1
            self.rare_kept[second] += keep

    def minutes(self) -> list[float]:
        """Return the use of each minute as a share of the budget, in a window that moves by one second."""
        return [sum(self.spent[end - MINUTE : end]) / (MINUTE * BUDGET) for end in range(WARM_UP + MINUTE, SECONDS + 1)]

    @property
    def budget_error(self) -> float:
        """Mean deviation of a minute from the budget, as a share of the budget."""
        minutes = self.minutes()
        return sum(abs(minute - 1) for minute in minutes) / len(minutes)

    @property
    def overshoot(self) -> float:
        """Use of the minute with the highest use, as a share of the budget."""
        return max(self.minutes())

    def part_kept_of_rare(self, *, burst: bool) -> float:
        """Return the kept share of traces of rare routes during the burst of all routes, or in the rest of the time.

        During the burst, the rare routes alone exceed the budget.
        """
        seconds = [at for at in range(WARM_UP, SECONDS) if (ALL_BURST[0] <= at < ALL_BURST[1]) is burst]
        return sum(self.rare_kept[at] for at in seconds) / sum(self.rare[at] for at in seconds)


def policy() -> Policy:
    """Return the policy of the agent's sampler: the budget, errors up to a ceiling, slow traces and new keys."""
    always = Always(errors=Ceiling(share=ERROR_SHARE), slow=Slow(ceiling=Ceiling(share=0.1), percentile=99))
    return Policy(budget=Budget.spans_per_second(BUDGET), always=always)


def ours() -> Callable[[float, Trace], tuple[bool, str]]:
    """Return the agent's sampler."""
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
    """Return Refinery's sampler, with errors as separate keys, as its documentation recommends."""
    sampler = EmaThroughput(BUDGET, whole=whole)

    def decide(now: float, trace: Trace) -> tuple[bool, str]:
        rate = sampler.rate(f"{trace.key[1]} {'500' if trace.error else '200'}", trace.spans, now)
        return trace.randomness < (1 << 56) / rate, Reason.BUDGET

    return decide


def run(name: str, decide: Callable[[float, Trace], tuple[bool, str]], seed: int = 1) -> Outcome:
    """Run a sampler on the traffic; return the result."""
    outcome = Outcome(name)
    for now, trace in traffic(seed):
        keep, reason = decide(now, trace)
        outcome.book(now, trace, keep=keep)
        outcome.reasons[f"{'kept' if keep else 'dropped'}: {reason}"] += 1
    return outcome


def errors_up_to_ceiling(outcome: Outcome) -> float:
    """Return the smallest kept share of errors, or of their ceiling if lower, in any ten seconds of the incident."""
    worst = 1.0
    for begin in range(INCIDENT[0], INCIDENT[1], 10):
        there, kept = (sum(spans[begin : begin + 10]) for spans in (outcome.errors, outcome.errors_kept))
        worst = min(worst, kept / min(there, ERROR_SHARE * BUDGET * 10))
    return worst


def main() -> None:
    """Print the figures; with `--plot`, draw them."""
    outcomes = [
        run("adaptive_sampling", ours()),
        run("EMA, as Refinery has it", refinery()),
        run("the same with real rates", refinery(whole=False)),
    ]
    print(f"{'':26}{'budget error':>14}{'dearest minute':>16}{'rare kept':>11}{'in the burst':>14}{'errors*':>10}")
    for outcome in outcomes:
        calm, burst = (outcome.part_kept_of_rare(burst=burst) for burst in (False, True))
        print(
            f"{outcome.name:26}{outcome.budget_error:14.1%}{outcome.overshoot:16.1%}{calm:11.1%}{burst:14.1%}"
            f"{errors_up_to_ceiling(outcome):10.1%}"
        )
    print("* of the incident's errors, or of their ceiling if that is less: what the worst ten seconds kept\n")
    print(*(f"{reason}: {count}" for reason, count in sorted(outcomes[0].reasons.items())), sep="\n")
    if "--plot" in sys.argv:
        plot(outcomes[0], outcomes[1])


def plot(adaptive: Outcome, other: Outcome) -> None:
    """Draw the use of the budget and the kept shares."""
    import matplotlib as mpl  # noqa: PLC0415 - not a dependency

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (spans, minutes, rare) = plt.subplots(3, 1, figsize=(10, 9), sharex=True, constrained_layout=True)
    figure.suptitle("One budget, one traffic: adaptive_sampling and Refinery's moving average")
    drawn = ((adaptive, "tab:blue", "adaptive_sampling"), (other, "tab:orange", "Refinery's formula"))
    seconds = range(SECONDS)
    spans.semilogy(seconds, adaptive.offered, color="0.7", linewidth=0.8, label="arrived")
    for outcome, color, name in drawn:
        spans.semilogy(seconds, _smooth(outcome.spent, 5), color=color, linewidth=1.1, label=name)
        minutes.plot(range(WARM_UP + MINUTE, SECONDS + 1), [100 * m for m in outcome.minutes()], color=color)
        kept, there = (_smooth(numbers, 20) for numbers in (outcome.rare_kept, outcome.rare))
        parts = [100 * part / whole if whole else 100.0 for part, whole in zip(kept, there, strict=True)]
        rare.plot(seconds, parts, color=color)
    spans.axhline(BUDGET, color="black", linestyle=":", linewidth=1, label=f"budget, {BUDGET:.0f} spans/s")
    spans.set_ylabel("spans a second (mean of 5 s)")
    spans.set_ylim(20, 300_000)
    minutes.axhline(100, color="black", linestyle=":", linewidth=1)
    minutes.axhline(110, color="tab:red", linestyle=":", linewidth=1, label="110 %")
    minutes.set_ylabel("the last minute, % of its budget")
    minutes.legend(loc="upper right", frameon=False)
    rare.set_ylabel("rare routes' traces kept, % (20 s)")
    rare.set_xlabel("seconds")
    rare.set_ylim(0, 105)
    rare.set_xlim(0, SECONDS)
    periods = ((ROUTE_BURST, "one route, twentyfold"), (ALL_BURST, "everything"), (INCIDENT, "incident: 30 % errors"))
    for (begin, end), what in (*periods, ((RELEASE, SECONDS), "new release, 20 new routes")):
        for axes in (spans, minutes, rare):
            axes.axvspan(begin, end, color="0.93", zorder=0)
        spans.text(begin, 1.02, what, transform=spans.get_xaxis_transform(), fontsize=9)
    spans.legend(loc="lower right", ncols=4, frameon=False, fontsize=9)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    print(f"drawn: {PICTURE}")


def _smooth(numbers: list[int], seconds: int) -> list[float]:
    """Return the moving average of `numbers` over the last `seconds`."""
    return [sum(numbers[max(at - seconds + 1, 0) : at + 1]) / min(at + 1, seconds) for at in range(len(numbers))]


if __name__ == "__main__":
    main()
