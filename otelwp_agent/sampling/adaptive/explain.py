"""Describe a controller's state for people: the reason of each key's probability, and estimates with intervals."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

from otelwp_agent.sampling.adaptive.reporting import report
from otelwp_agent.sampling.adaptive.trace import OTHER
from otelwp_agent.sampling.consistent import ALWAYS

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.controller import Controller
    from otelwp_agent.sampling.adaptive.estimates import Estimate
    from otelwp_agent.sampling.adaptive.keys import KeyState
    from otelwp_agent.sampling.adaptive.policy import Budget
    from otelwp_agent.sampling.adaptive.trace import Key

PERCENTILES = (50.0, 95.0, 99.0)
_NEAR = 0.01
"""Relative distance to a key's own budget below which that budget counts as the reason."""


def explain(controller: Controller, now: float, top: int) -> dict[str, Any]:
    """Return the controller's state and the `top` keys with the most traffic, as JSON-compatible data.

    Intervals are `[value, low, high]`, `None` where nothing is known. Rates are per second, durations in seconds.
    """
    policy, guard = controller.policy, controller.guard
    if guard is not None:
        guard.advance(now)
    heaviest = heapq.nlargest(top, controller.keys(), key=lambda entry: entry[1].traffic)
    return {
        "budget": _budget(policy.budget),
        "key_budget": _budget(policy.key_budget),
        "spent_last_minute": None if guard is None else guard.spent,
        "factor": 1.0 if guard is None else guard.factor(),
        "guarded": controller.guarded,
        "over_ceiling": {limit.reason.value: limit.over for limit in controller.always.limits},
        "keys_known": len(controller.key_states.states),
        "max_keys": policy.max_keys,
        "keys": [_key(controller, key, state, now) for key, state in heaviest],
    }


def _key(controller: Controller, key: Key, state: KeyState, now: float) -> dict[str, Any]:
    found = report(controller, key, now, PERCENTILES)
    seconds = max(found.seconds, 1.0)
    tallies = [tally for tally in (state.tally, state.earlier) if tally is not None]
    kept = sum(tally.certain + tally.chances for tally in tallies)
    total = found.traces.value
    return {
        "key": list(key),
        "rate": [_finite(number / seconds) for number in found.traces],
        "kept": kept,
        "kept_share": kept / total if total else None,
        "probability": state.probability,
        "error_ratio": _interval(found.error_ratio),
        "percentiles": {f"{percent:g}": _interval(value) for percent, value in found.percentiles.items()},
        "slow_above": _finite(state.slow_above),
        "why": _why(controller, key, state),
    }


def _why(controller: Controller, key: Key, state: KeyState) -> str:
    """Return the reason for a key's probability as text."""
    policy = controller.policy
    budget, own = policy.budget, policy.key_budget
    shared = f"one of more than {policy.max_keys} keys, which share one probability;  " if key == OTHER else ""
    counted = budget or own
    if counted is None:
        return f"{shared}all traces kept: there is no budget"
    unit = f"{counted.unit.value}/s"
    if not state.measured:
        return f"{shared}new: not measured yet"
    if state.threshold == ALWAYS:
        if not state.weight_rate:
            return f"{shared}all traces kept: no recent trace was decided by probability"
        return f"{shared}all traces kept: its {_number(state.weight_rate)} {unit} fit in its share"
    gets = state.probability * state.adjusted_rate
    if own is not None and gets >= own.rate * (1 - _NEAR):
        return f"{shared}limited by target_per_key: {_number(gets)} of {_number(state.adjusted_rate)} {unit}"
    return f"{shared}reduced: its share of the budget is {_number(gets)} of {_number(state.adjusted_rate)} {unit}"


def _budget(budget: Budget | None) -> dict[str, Any] | None:
    return None if budget is None else {"rate": budget.rate, "unit": budget.unit.value}


def _interval(estimate: Estimate) -> list[float | None] | None:
    """Return an estimate as a list; `None` if nothing is known."""
    low, high = estimate.low, estimate.high
    if not estimate.value and not low and high >= 1:
        return None
    return [_finite(number) for number in estimate]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004 - three significant digits
