"""The circuit breaker of one exporter: whether its other side may be tried now.

::

    CLOSED ── `failures` in a row ──▶ OPEN ── its time is over ──▶ HALF_OPEN ── the probe is answered ──▶ CLOSED
                                       ▲                              │
                                       └───── the probe fails ────────┘   (each time open twice as long)

Closed, everything may be tried. Open, nothing is, so that a dead backend costs nothing. Half-open, one try is under
way, the probe, and whatever becomes of it decides. An answer is a sign of life even if it is a refusal for good.

A server that says "too many requests, come back in 7 s" is alive: it closes the breaker, and nothing is tried for 7 s.

All senders of an exporter share its breaker. Who tries something asks for a permit first and gives it back with what
became of the try: `answered`, `failed`, `throttled`, or `released` if nobody knows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config.blocks import CircuitBreaker

GROWTH = 2.0
"""Each time that a probe fails, the breaker stays open this many times as long."""
JITTER = 0.2
"""Share of the open time that is left to chance, both ways, so that agents do not come back together."""
LONGEST_WORD = 3600.0
"""Longest time, in seconds, for which the other side can forbid all tries: a slip in a header must not last a year."""
PRECEDENCE = 0.1
"""Seconds by which the sender whose probe failed comes after the others: the other side may refuse its signal alone."""


class State(IntEnum):
    """What a breaker lets through; the numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def label(self) -> str:
        """Its name in health details, logs and metric labels."""
        return self.name.lower()


class Permit(IntEnum):
    """Whether something may be tried."""

    NONE = 0
    TRY = 1
    PROBE = 2


class Breaker:
    """Decides whether something may be tried. Times are seconds on the caller's clock.

    `calm` is true as long as there is nothing to ask and nothing to tell: closed, no failure since the last answer, not
    throttled. While it is, `acquire` gives `Permit.TRY` and `answered` changes nothing, so callers may skip both.
    `listeners` are called, one for each sender, whenever something may have become possible earlier than `ask_again`
    said. `told` is called with each transition's new state.
    """

    def __init__(
        self,
        settings: CircuitBreaker,
        random: Callable[[], float],
        told: Callable[[State], None] = lambda _: None,
    ) -> None:
        """Start closed; `random()` returns a number in [0, 1)."""
        self.state = State.CLOSED
        self.calm = True
        self.until = 0.0
        """When something may be tried: infinity while a probe is under way."""
        self.listeners: list[Callable[[], None]] = []
        self._told = told
        self._random = random
        self._allowed = settings.failures if settings.enabled else 0
        self._first, self._longest = min(settings.open_time, settings.max_open_time), settings.max_open_time
        self._open_time = self._first
        self._failures = 0
        self._prober: object = None

    def acquire(self, now: float, who: object = None, *, hurry: bool = False) -> Permit:
        """Return what `who` may try now. `hurry` waits for no time, only for the probe that is under way, if any."""
        if self.state is State.HALF_OPEN or (now < self.ask_again(who) and not hurry):
            return Permit.NONE
        if self.state is State.CLOSED:
            if not hurry:
                self._settle_down()
            return Permit.TRY
        self.until = float("inf")
        self._prober = who
        self._go(State.HALF_OPEN)
        return Permit.PROBE

    def ask_again(self, who: object = None) -> float:
        """Return when `who` shall ask again after a `Permit.NONE`."""
        if who is self._prober and self.state is State.OPEN and len(self.listeners) > 1:
            return self.until + PRECEDENCE
        return self.until

    def answered(self) -> None:
        """Learn that the other side has answered, with success or a refusal for good."""
        self._failures = 0
        self._open_time = self._first
        if self.state is State.CLOSED:
            self.calm = not self.until
            return
        self.until = 0.0
        self.calm = True
        self._go(State.CLOSED)

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Learn that the other side has no room now, and perhaps for how long."""
        wait = now + min(retry_after or 0.0, LONGEST_WORD)
        if self.state is not State.CLOSED:
            self.answered()
        self._failures = 0
        if wait > now:
            self.until = max(self.until, wait)
        self.calm = not self.until

    def failed(self, permit: Permit, now: float, retry_after: float | None = None) -> None:
        """Learn that a try has failed: no answer, or one that says that the other side is not well."""
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
        """Give back the permit of a try that has told nothing. If it was the probe, another is due."""
        if permit is Permit.PROBE and self.state is State.HALF_OPEN:
            self.until = now
            self._go(State.OPEN)

    def _open(self, now: float, retry_after: float | None) -> None:
        wait = self._open_time * (1 + JITTER * (2 * self._random() - 1))
        self.until = now + max(wait, min(retry_after or 0.0, LONGEST_WORD))
        self.calm = False
        self._go(State.OPEN)

    def _settle_down(self) -> None:
        """Forget a throttling that is over."""
        self.until = 0.0
        self.calm = not self._failures

    def _go(self, state: State) -> None:
        self.state = state
        self._told(state)
        if state is not State.HALF_OPEN:
            for listener in tuple(self.listeners):
                listener()
