"""What the main loop sees of the components from one look to the next, and the snapshots that it makes of it."""

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
    """The components at one time. It is never changed, so that threads may share it."""

    taken: float = float("-inf")
    """When, on the monotonic clock."""
    status: str = ""
    """The status of the agent then: with another one, it runs other components."""
    components: tuple[tuple[ComponentHealth, float], ...] = ()
    """Each with the time at which it came into its state, in seconds since 1970; sorted by name."""
    failing_often: tuple[tuple[str, int], ...] = ()
    """Exporters with too many failed sends, and how many."""


class Watch:
    """Remembers since when each component is in its state, and how often each exporter failed lately.

    `clock` is monotonic, `wall` is seconds since 1970, failures are counted `interval` seconds back. Use it from one
    thread.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], interval: float) -> None:
        """Start with nothing seen."""
        self._clock = clock
        self._wall = wall
        self._interval = interval
        self._states: dict[str, tuple[bool, float]] = {}
        self._running: dict[str, int] = {}
        self._failures: dict[str, deque[tuple[float, int]]] = {}

    def see(self, components: Sequence[ComponentHealth]) -> None:
        """Compare with what was seen last; forget components that are gone."""
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
        """See `components`, and return what is known of them; more than `threshold` failures are too many."""
        self.see(components)
        seen = [
            (replace(each, details=dict(each.details)), self._states[name_of(each)][1])
            for each in sorted(components, key=name_of)
        ]
        often = () if threshold is None else tuple(self.failing_often(threshold))
        return Snapshot(self._clock(), status, tuple(seen), often)

    def failing_often(self, threshold: int) -> list[tuple[str, int]]:
        """Return the exporters with more than `threshold` failed sends within the interval, and how many."""
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
        """Count failures since the last look: an exporter reports how many it has had in a row."""
        row = int(exporter.details.get("consecutive_failures", 0 if exporter.healthy else 1))
        before, self._running[name] = self._running.get(name, 0), row
        fresh = row - before if row >= before else row
        if fresh:
            self._failures.setdefault(name, deque()).append((self._clock(), fresh))


def name_of(component: ComponentHealth) -> str:
    """Return what a component is called; an exporter of several signals is one for each."""
    signal = component.details.get("data_type", "")
    return f"{component.kind.label} {component.id}" + (f" ({signal})" if signal else "")
