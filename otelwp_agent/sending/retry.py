"""Exponential back-off with jitter, never shorter than the wait that the backend requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config.blocks import Retry


class Backoff:
    """The waits between the attempts of one batch.

    Each wait is `multiplier` times the previous one, from `initial_interval` to `max_interval`, then changed by up to
    ± `randomization_factor` of itself. It is at least the wait that the backend requested. If it would end later than
    `max_elapsed_time` after the first attempt, the batch is given up.
    """

    __slots__ = ("_deadline", "_factor", "_interval", "_longest", "_multiplier", "_random")

    def __init__(self, settings: Retry, started: float, random: Callable[[], float]) -> None:
        """Start at the time of the first attempt; `random()` returns a number in [0, 1)."""
        limit = settings.max_elapsed_time
        self._deadline = (started + limit if limit > 0 else float("inf")) if settings.enabled else float("-inf")
        self._longest = settings.max_interval
        self._interval = min(settings.initial_interval, self._longest)
        self._multiplier = settings.multiplier
        self._factor = settings.randomization_factor
        self._random = random

    def next_wait(self, now: float, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait from `now` before the next attempt, or `None` to give up."""
        wait = self._interval * (1 + self._factor * (2 * self._random() - 1))
        self._interval = min(self._interval * self._multiplier, self._longest)
        if retry_after is not None:
            wait = max(wait, retry_after)
        return wait if now + wait <= self._deadline else None
