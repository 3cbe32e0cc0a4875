"""Table and plot of the cost of recording a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LIMITS = {"p50": 0.15, "p99": 0.5}
"""Longest time of the export call, in milliseconds, by quantile."""
COLLECT_LIMIT = 1.0
THROUGHPUT_LIMIT = 0.03
"""Largest share of throughput that the plugin may cost."""
FIRST_CHOICE = "unix datagram"
"""Transport that the plugin prefers."""


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return median, 90th and 99th percentile, by nearest rank, and the largest."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]

    return {"p50": rank(0.5), "p90": rank(0.9), "p99": rank(0.99), "max": ordered[-1]}


def row(cost: dict[str, Any]) -> str:
    """Return one line of the table."""

    def three(name: str) -> str:
        return " / ".join(f"{cost[name][which]:.2f}" for which in ("p50", "p90", "p99"))

    prepare = f"{cost['prepare_ms']['p50']:.2f}" if "prepare_ms" in cost else ""
    spans = f"{cost['spans']:.0f}" if "spans" in cost else "1"
    cells = (
        cost["state"],
        cost["plugin"],
        cost["transport"],
        spans,
        three("export_ms"),
        prepare,
        three("gain_ms"),
        f"{cost['cpu_gain_ms']['p50']:.2f}",
        str(cost["pages"]),
    )
    return "| " + " | ".join(cells) + " |"


def rate_row(rate: dict[str, Any]) -> str:
    """Return one line of the table of throughput."""
    cells = [rate["state"], f"{rate['off']:.0f}"]
    for variant in ("installed", "every", "ours", "founding"):
        found = rate[variant]
        agent = f" / {found['agent_ms']:.2f}" if found["agent_ms"] else ""
        cells.append(f"{found['share'] - 1:+.1%} ({found['php_ms']:+.2f}{agent})")
    return "| " + " | ".join(cells) + " |"


def markdown(results: dict[str, Any]) -> str:
    """Return the whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: dict[str, Any]) -> Iterator[str]:
    yield " · ".join(f"{name}: {value}" for name, value in results["machine"].items())
    yield ""
    exports, gains = "export call, ms: p50 / p90 / p99", "page with it less without, ms"
    yield f"| agent | plugin | over | spans | {exports} | preparing, p50 | {gains} | CPU, p50 | pages |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|"
    for cost in results["costs"]:
        yield row(cost)
    yield ""
    if results["rates"]:
        yield "Throughput of a REST page, and in brackets the CPU that a page costs more: ms of PHP / ms of the agent."
        yield ""
        yield (
            "| agent | pages/s without a plugin | ours as installed: one page in ten | ours, every page"
            " | ours, every page and every query a span | founding, every page |"
        )
        yield "|---|---:|---:|---:|---:|---:|"
        for rate in results["rates"]:
            yield rate_row(rate)
        yield ""
    yield f"| goal, over a {FIRST_CHOICE} | measured, worst state | |"
    yield "|---|---:|---|"
    ours = [cost for cost in results["costs"] if cost["plugin"] == "ours" and cost["transport"] == FIRST_CHOICE]
    for which, limit in LIMITS.items():
        worst = max(cost["export_ms"][which] for cost in ours)
        verdict = "met" if worst <= limit else "**missed**"
        yield f"| export call, {which} ≤ {limit} ms | {worst:.2f} ms | {verdict} |"
    collect = max(cost["prepare_ms"]["p50"] for cost in ours)
    verdict = "met" if collect <= COLLECT_LIMIT else "**missed**"
    spans = f"{ours[0]['spans']:.0f}"
    yield f"| preparing what was collected, {spans} spans, ≤ {COLLECT_LIMIT} ms | {collect:.2f} ms | {verdict} |"
    for variant, words in (("installed", "as installed"), ("every", "every page recorded")):
        if results["rates"]:
            loss = max(1 - rate[variant]["share"] for rate in results["rates"])
            verdict = "met" if loss <= THROUGHPUT_LIMIT else "**missed**"
            yield f"| throughput, {words}: within {THROUGHPUT_LIMIT:.0%} | {-loss:+.1%} | {verdict} |"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the time of the export call in each state, if matplotlib is installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - not a dependency of this project
    except ImportError:
        print(f"no plot in {path}: matplotlib is not installed", file=sys.stderr)
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    states = [state for state in dict.fromkeys(cost["state"] for cost in results["costs"]) if "tries" not in state]
    bars = list(dict.fromkeys((cost["plugin"], cost["transport"]) for cost in results["costs"]))
    colours = ("#c23b22", "#1b4965", "#5fa8d3", "#9fc9e0")
    figure, axes = plt.subplots(figsize=(8, 3.6), dpi=110)
    for number, ((plugin, transport), colour) in enumerate(zip(bars, colours, strict=False)):
        costs = {
            cost["state"]: cost
            for cost in results["costs"]
            if (cost["plugin"], cost["transport"]) == (plugin, transport)
        }
        middle = [costs[state]["export_ms"]["p50"] for state in states]
        top = [costs[state]["export_ms"]["p99"] - costs[state]["export_ms"]["p50"] for state in states]
        places = [place + (number - 1.5) * 0.2 for place in range(len(states))]
        axes.bar(places, middle, 0.19, color=colour, label=f"{plugin}, {transport}")
        axes.errorbar(places, middle, [[0.0] * len(states), top], fmt="none", ecolor="#555555", capsize=2, linewidth=1)
    axes.set_yscale("log")
    axes.axhline(LIMITS["p50"], color="#888888", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(states)), [f"agent {state}".replace(", ", ",\n") for state in states])
    axes.set_ylabel("export call, ms (median to p99)")
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
