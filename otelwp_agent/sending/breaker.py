"""The circuit breaker of one exporter: whether a send may be attempted now.

::

    CLOSED ── `failures` in a row ──▶ OPEN ── its time is over ──▶ HALF_OPEN ── the probe is answered ──▶ CLOSED
                                       ▲                              │
                                       └───── the probe fails ────────┘   (each time open twice as long)

Closed: every send is attempted. Open: none is, so that an unreachable backend costs nothing. Half-open: one attempt is
under way, the probe, and its result decides. Every answer closes the breaker, also a permanent refusal.

A backend that answers "too many requests, retry after 7 s" is reachable: it closes the breaker, and nothing is sent for
7 s.

All senders of an exporter share its breaker. A sender acquires a permit before an attempt and reports the result:
`answered`, `failed`, `throttled`, or `released` if the attempt had no result.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config.blocks import CircuitBreaker

GROWTH = 2.0
"""Factor by which the open time grows each time that a probe fails."""
JITTER = 0.2
"""Random part of the open time (±), so that many agents do not retry at the same moment."""
MAX_RETRY_AFTER = 3600.0
"""Longest wait, in seconds, that a backend can request: a mistake in a header must not stop sending for a year."""
PRECEDENCE = 0.1
"""Seconds by which a sender whose probe failed waits longer than the others: the backend may refuse only its signal."""


class State(IntEnum):
    """State of a breaker; the numbers are the values of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def label(self) -> str:
        """Name in health details, logs and metric labels."""
        return self.name.lower()


class Permit(IntEnum):
    """Permission for one attempt."""

    NONE = 0
    TRY = 1
    PROBE = 2


class Breaker:
    """Decides whether a send may be attempted. Times are seconds on the caller's clock.

    `calm` is true while the breaker is closed, no attempt has failed since the last answer, and the backend does not
    throttle. Then `acquire` returns `Permit.TRY` and `answered` changes nothing, so callers may skip both. `listeners`,
    one for each sender, are called when an attempt may be possible earlier than `ask_again` returned. `on_transition`
    is called with the new state at each transition.
    """

    def __init__(
        self,
        settings: CircuitBreaker,
        random: Callable[[], float],
        on_transition: Callable[[State], None] = lambda _: None,
    ) -> None:
        """Start closed; `random()` returns a number in [0, 1)."""
        self.state = State.CLOSED
        self.calm = True
        self.until = 0.0
        """Time of the next permitted attempt; infinity while a probe is under way."""
        self.listeners: list[Callable[[], None]] = []
        self._on_transition = on_transition
        self._random = random
        self._allowed = settings.failures if settings.enabled else 0
        self._first, self._longest = min(settings.open_time, settings.max_open_time), settings.max_open_time
        self._open_time = self._first
        self._failures = 0
        self._prober: object = None

    def acquire(self, now: float, sender: object = None, *, hurry: bool = False) -> Permit:
        """Return the permit of `sender` for one attempt now. With `hurry`, only a probe under way prevents it."""
        if self.state is State.HALF_OPEN or (now < self.ask_again(sender) and not hurry):
            return Permit.NONE
        if self.state is State.CLOSED:
            if not hurry:
                self._end_throttling()
            return Permit.TRY
        self.until = float("inf")
        self._prober = sender
        self._enter(State.HALF_OPEN)
        return Permit.PROBE

    def ask_again(self, sender: object = None) -> float:
        """Return when `sender` should call `acquire` again after `Permit.NONE`."""
        if sender is self._prober and self.state is State.OPEN and len(self.listeners) > 1:
            return self.until + PRECEDENCE
        return self.until

    def answered(self) -> None:
        """Record an answer of the backend: a success, or a permanent refusal."""
        self._failures = 0
        self._open_time = self._first
        if self.state is State.CLOSED:
            self.calm = not self.until
            return
        self.until = 0.0
        self.calm = True
        self._enter(State.CLOSED)

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Record that the backend has no capacity now; `retry_after` is the wait that it requested, if any."""
        wait = now + min(retry_after or 0.0, MAX_RETRY_AFTER)
        if self.state is not State.CLOSED:
            self.answered()
        self._failures = 0
        if wait > now:
            self.until = max(self.until, wait)
        self.calm = not self.until

    def failed(self, permit: Permit, now: float, retry_after: float | None = None) -> None:
        """Record a failed attempt: no answer, or one that reports a failure of the backend."""
        if not self._allowed:
            return
        if self.state is State.CLOSED:
            self.calm = False
            self._failures += 1
            if self._failures >= self._allowed:
                self._open(now, retry_after)
        elif permit is Permit.PROBE:
            self._open_time = min(self._open_time * GROWTH, self._longest)
            self._open(now, retry_after)

    def released(self, permit: Permit, now: float) -> None:
        """Return the permit of an attempt without a result. If it was the probe, another one may start."""
        if permit is Permit.PROBE and self.state is State.HALF_OPEN:
            self.until = now
            self._enter(State.OPEN)

    def _open(self, now: float, retry_after: float | None) -> None:
        wait = self._open_time * (1 + JITTER * (2 * self._random() - 1))
        self.until = now + max(wait, min(retry_after or 0.0, MAX_RETRY_AFTER))
        self.calm = False
        self._enter(State.OPEN)

    def _end_throttling(self) -> None:
        """Clear a throttling that has ended."""
        self.until = 0.0
        self.calm = not self._failures

    def _enter(self, state: State) -> None:
        self.state = state
        self._on_transition(state)
        if state is not State.HALF_OPEN:
            for listener in tuple(self.listeners):
                listener()
