"""Bound the values of a metric label that senders can influence: the most active ones, and `other` for the rest.

A metric with a label for each of 10 000 tenants would make the agent and the metrics backend slow. `TopLabels` names
the most active tenants only. What a tenant did before it was named is counted as `other`, so no counter ever decreases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.telemetry.space_saving import SpaceSaving

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = "other"
"""The value for all names that are not among the most active."""
PERIOD = 60.0
"""Seconds after which the most active names are chosen again."""
_CANDIDATES = 4
"""Names that are counted for each one that is chosen."""


class TopLabels:
    """Chooses the label values of at most `capacity` names."""

    __slots__ = ("_active", "_candidates", "_capacity", "_clock", "_next", "_removed")

    def __init__(
        self, capacity: int, clock: Callable[[], float], removed: Callable[[str], None] = lambda _name: None
    ) -> None:
        """Name up to `capacity` values; call `removed` with a name that is no longer used, to remove its metrics."""
        self._capacity = capacity
        self._clock = clock
        self._removed = removed
        self._active: dict[str, int] = {}
        """By name: how often it was used in this period."""
        self._candidates: SpaceSaving[str] = SpaceSaving(max(1, _CANDIDATES * capacity))
        self._next = clock() + PERIOD

    def label(self, name: str) -> str:
        """Count a use of `name`; return it if it is among the most active names, else `OTHER`."""
        count = self._active.get(name)
        if count is not None:
            self._active[name] = count + 1
            return name
        if len(self._active) < self._capacity:
            self._active[name] = 1
            return name
        if not self._capacity:
            return OTHER
        self._candidates.add(name)
        if self._clock() >= self._next:
            self._choose()
        return OTHER

    def _choose(self) -> None:
        """Replace the least active names by candidates that were more active in this period."""
        self._next = self._clock() + PERIOD
        least = sorted(self._active.items(), key=lambda entry: entry[1])
        for (name, count), (candidate, more) in zip(least, self._candidates.heaviest(self._capacity), strict=False):
            if more <= count:
                break
            del self._active[name]
            self._active[candidate] = 0
            self._removed(name)
        self._active = dict.fromkeys(self._active, 0)
        self._candidates.clear()
