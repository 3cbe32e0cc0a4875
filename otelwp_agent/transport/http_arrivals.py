"""Limit the memory of request bodies that are still arriving, over all HTTP servers that share one `InFlight`.

Above the soft limit, a body is read only if its missing bytes fit below the hard limit. The body with the fewest
missing bytes comes first, then the oldest; the others wait in the kernel's buffers while their deadlines run. If bodies
wait, and within `PATIENCE` seconds no body ends and less than `LEAST_PROGRESS` bytes arrive, the body with the largest
product of bytes and seconds is refused. Above the hard limit this happens at once.

Invariant: the reservation of a body is released exactly once, by `end`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from otelwp_agent.transport.in_flight import InFlight

RECHECK = 0.05
"""Seconds between decisions above the soft limit."""
PATIENCE = 1.0
"""Seconds for which bodies wait without progress before one is refused."""
LEAST_PROGRESS = 2**20
"""Minimum number of bytes that must arrive in all bodies within `PATIENCE` seconds, if no body ends."""


class Receiving(Protocol):
    """A connection on which a body arrives."""

    def pause_body(self) -> None:
        """Stop reading from the connection."""

    def resume_body(self) -> None:
        """Read from the connection again."""

    def refuse_body(self) -> None:
        """Answer 503, drop the body and call `Arrivals.end`."""


class Body(Protocol):
    """A body that is arriving."""

    @property
    def missing(self) -> int:
        """Maximum number of bytes that have not arrived yet."""


class _Arrival:
    """One unfinished body."""

    __slots__ = ("body", "may_read", "reserved", "since")

    def __init__(self, body: Body) -> None:
        self.body = body
        self.reserved = 0
        self.since = time.monotonic()
        self.may_read = False  # above the soft limit

    def rank(self) -> tuple[int, float]:
        """Return the sort key: missing bytes, then age."""
        return self.body.missing, self.since

    def weight(self, now: float) -> float:
        """Return reserved bytes times seconds. One second is added so that new bodies count."""
        return self.reserved * (now - self.since + 1)


class Arrivals:
    """The unfinished bodies that share one `InFlight`."""

    _shared: ClassVar[WeakValueDictionary[int, Arrivals]] = WeakValueDictionary()  # by the identity of an `InFlight`

    def __init__(self, in_flight: InFlight) -> None:
        """Reserve bytes in `in_flight`. Use `of`: two instances with one budget could not balance their bodies."""
        self.in_flight = in_flight
        self._arrivals: dict[Receiving, _Arrival] = {}
        self._above_soft = False
        self._progress = 0.0  # time of the last progress
        self._brought = 0  # bytes that have arrived since then, above the soft limit
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, in_flight: InFlight) -> Arrivals:
        """Return the only instance for `in_flight`."""
        found = cls._shared.get(id(in_flight))
        if found is None:
            found = cls._shared[id(in_flight)] = cls(in_flight)
        return found

    def add(self, receiving: Receiving, body: Body, size: int) -> None:
        """Reserve `size` more bytes of an incomplete body; this may pause or refuse it, or others."""
        arrival = self._arrivals.get(receiving)
        if arrival is None:
            arrival = self._arrivals[receiving] = _Arrival(body)
        arrival.reserved += size
        in_flight = self.in_flight
        in_flight.reserve(size)
        if in_flight.used <= in_flight.soft:
            return
        self._brought += size
        if not self._above_soft or in_flight.used > in_flight.hard:
            self.balance()
        elif not arrival.may_read:
            receiving.pause_body()

    def end(self, receiving: Receiving) -> None:
        """Release the reservation of a body; do nothing if it is not registered."""
        arrival = self._arrivals.pop(receiving, None)
        if arrival is not None:
            self.in_flight.release(arrival.reserved)
            self._note_progress(time.monotonic())

    def balance(self) -> None:
        """Decide which bodies are read, wait or are refused."""
        now = time.monotonic()
        in_flight = self.in_flight
        while in_flight.used > in_flight.hard and self._refuse_one(now):
            pass
        if in_flight.used <= in_flight.soft:
            self._resume_all()
            return
        if not self._above_soft:
            self._above_soft = True
            self._note_progress(now)
        if self._let_read() and now - self._progress >= PATIENCE:
            if self._brought < LEAST_PROGRESS:
                self._refuse_one(now)
            self._note_progress(now)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RECHECK, self._recheck)

    def _note_progress(self, now: float) -> None:
        self._progress = now
        self._brought = 0

    def _recheck(self) -> None:
        self._timer = None
        self.balance()

    def _resume_all(self) -> None:
        self._above_soft = False
        for receiving, arrival in list(self._arrivals.items()):
            arrival.may_read = False
            receiving.resume_body()

    def _let_read(self) -> bool:
        """Read the bodies that fit below the hard limit and pause the others; return whether a body waits."""
        available = self.in_flight.hard - self.in_flight.used
        waiting = False
        for receiving, arrival in sorted(self._arrivals.items(), key=lambda item: item[1].rank()):
            missing = arrival.body.missing
            arrival.may_read = missing <= available
            if arrival.may_read:
                available -= missing
                receiving.resume_body()
            else:
                waiting = True
                receiving.pause_body()
        return waiting

    def _refuse_one(self, now: float) -> bool:
        """Refuse the body with the largest weight (bytes times seconds); return False if no body holds any bytes."""
        heaviest = max(self._arrivals.items(), key=lambda item: item[1].weight(now), default=None)
        if heaviest is None or not heaviest[1].reserved:
            return False
        heaviest[0].refuse_body()
        return True
