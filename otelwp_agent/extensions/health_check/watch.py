"""Follow the state of the components over time, and make snapshots of it. Runs on the main loop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otelwp_agent.component import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import ComponentHealth


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the components at one time. Immutable, so that threads may share it."""

    taken: float = float("-inf")
    """Time of the snapshot, on the monotonic clock."""
    status: str = ""
    """Status of the agent at that time; after a change of status, the components may be others."""
    components: tuple[tuple[ComponentHealth, float], ...] = ()
    """Components with the time of their last change of state, in seconds since 1970; sorted by name."""
    failing_often: tuple[tuple[str, int], ...] = ()
    """Exporters with too many failed attempts, and the number of these."""


class Watch:
    """Records the time of each component's last change of state, and the recent failures of each exporter.

    `clock` is monotonic, `wall` returns seconds since 1970, failures are counted for `interval` seconds. Not
    thread-safe.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], interval: float) -> None:
        """Start without components."""
        self._clock = clock
        self._wall = wall
        self._interval = interval
        self._states: dict[str, tuple[bool, float]] = {}
        self._running: dict[str, int] = {}
        self._failures: dict[str, deque[tuple[float, int]]] = {}

    def see(self, components: Sequence[ComponentHealth]) -> None:
        """Record changes of state since the last call; forget components that no longer exist."""
        names = {name_of(each) for each in components}
        for seen in (self._states, self._running, self._failures):
            for name in [name for name in seen if name not in names]:
                del seen[name]
        for each in components:
            name = name_of(each)
            state = self._states.get(name)
            if state is None or state[0] != each.healthy:
                self._states[name] = each.healthy, self._wall()
            if each.kind is Kind.EXPORTER:
                self._count(name, each)

    def snapshot(self, status: str, components: Sequence[ComponentHealth], threshold: int | None) -> Snapshot:
        """Record `components` and return a snapshot; exporters with more than `threshold` failures fail too often."""
        self.see(components)
        seen = [
            (replace(each, details=dict(each.details)), self._states[name_of(each)][1])
            for each in sorted(components, key=name_of)
        ]
        often = () if threshold is None else tuple(self.failing_often(threshold))
        return Snapshot(self._clock(), status, tuple(seen), often)

    def failing_often(self, threshold: int) -> list[tuple[str, int]]:
        """Return the exporters with more than `threshold` failed attempts within the interval, and their number."""
        oldest = self._clock() - self._interval
        often: list[tuple[str, int]] = []
        for name, failures in self._failures.items():
            while failures and failures[0][0] < oldest:
                failures.popleft()
            count = sum(count for _, count in failures)
            if count > threshold:
                often.append((name, count))
        return often

    def _count(self, name: str, exporter: ComponentHealth) -> None:
        """Count failures since the last call: an exporter reports its number of consecutive failures."""
        row = int(exporter.details.get("consecutive_failures", 0 if exporter.healthy else 1))
        before, self._running[name] = self._running.get(name, 0), row
        fresh = row - before if row >= before else row
        if fresh:
            self._failures.setdefault(name, deque()).append((self._clock(), fresh))


def name_of(component: ComponentHealth) -> str:
    """Return the name of a component; for an exporter of several signals, one name for each signal."""
    signal = component.details.get("data_type", "")
    return f"{component.label} {component.id}" + (f" ({signal})" if signal else "")
