"""Estimates about all traces of a key, computed from those that were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.sampling.adaptive.estimates import Estimate, Tally
from otelwp_agent.sampling.consistent import adjusted_count

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.controller import Controller
    from otelwp_agent.sampling.adaptive.trace import Key


class KeyReport(NamedTuple):
    """Estimates about one key, each with its 95 % interval."""

    seconds: float
    """The time that the report covers."""
    traces: Estimate
    """The number of traces, kept or not; divide by `seconds` for the rate."""
    error_ratio: Estimate
    percentiles: dict[float, Estimate]
    """Durations in seconds, by percentile."""


def report(
    controller: Controller, key: Key, now: float, percentiles: tuple[float, ...] = (50.0, 95.0, 99.0)
) -> KeyReport:
    """Estimate traces, errors and durations of `key` from its kept traces, with 95 % intervals."""
    state = controller.key_states.find(key)
    tally = state.tally
    if state.earlier is not None:
        tally = Tally()
        tally.merge(state.earlier)
        tally.merge(state.tally)
    unseen = adjusted_count(state.threshold)
    certain = controller.always.errors is not None and not tally.errors_missed
    return KeyReport(
        max(now - controller.window_before, 0.0),
        tally.total(unseen),
        tally.error_ratio(unseen, all_errors_certain=certain),
        {percent: tally.percentile(percent / 100) for percent in percentiles},
    )
