"""The limits that apply to the requests of one client from one address to one route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.limiting import Left, RequestAllowance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.errors import RateLimitedError
    from otelwp_agent.extensions.rate_limiter.limits import ConcurrencyLimit, RateLimit
    from otelwp_agent.limiting.gcra import Rate

    Charged = tuple[RateLimit, str, Rate]
    """A limit, the key's value and its rate."""
    Counted = tuple[ConcurrencyLimit, str, int]
    """A limit, the key's value and the number of requests in progress that it allows."""


class Allowance(RequestAllowance):
    """Asks each limit in turn. What was counted before a limit refuses is taken back."""

    __slots__ = ("_bodies", "_clock", "_concurrent", "_counted", "_refused", "_requests", "_usable")

    def __init__(  # noqa: PLR0913 - the limits by kind, and where requests are counted
        self,
        requests: Sequence[Charged],
        bodies: Sequence[Charged],
        concurrent: Sequence[Counted],
        *,
        clock: Callable[[], float],
        usable: Callable[[float], None] | None,
        counted: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        """Apply limits of `requests`, of the items and bytes of `bodies`, and of `concurrent` requests.

        `usable` raises `ForbiddenError` if the address is banned; `counted` counts an accepted request, `refused` the
        name of a limit that has refused one.
        """
        self._requests = requests
        self._bodies = bodies
        self._concurrent = concurrent
        self._clock = clock
        self._usable = usable
        self._counted = counted
        self._refused = refused

    def begin(self) -> None:
        """Count a request, or raise and count nothing.

        A request of a sender that has no items or bytes left is refused here, before its body is read.
        """
        now = self._clock()
        if self._usable is not None:
            self._usable(now)
        for limit, key, rate in self._bodies:
            wait = limit.rates.wait(key, rate, now)
            if wait:
                self._refuse(limit.name, limit.kept_refusal(key, rate, now, wait))
        for index, (counter, key, most) in enumerate(self._concurrent):
            if not counter.requests.begin(key, most):
                self._end(index)
                self._refuse(counter.name, counter.refusal(most))
        for index, (limit, key, rate) in enumerate(self._requests):
            wait = limit.rates.take(key, rate, now)
            if wait:
                self._end(len(self._concurrent))
                for charged, of, at in self._requests[:index]:
                    charged.rates.refund(of, at, now)
                self._refuse(limit.name, limit.kept_refusal(key, rate, now, wait))
        self._counted()

    def end(self) -> None:
        """Note that a request is no longer in progress."""
        self._end(len(self._concurrent))

    def charge(self, items: int, size: int) -> None:
        """Count items and bytes, or raise and count nothing."""
        if not self._bodies:
            return
        now = self._clock()
        for index, (limit, key, rate) in enumerate(self._bodies):
            cost = items if limit.unit == "items" else size
            wait = limit.rates.take(key, rate, now, cost)
            if wait:
                self._refund(index, items, size, now)
                self._refuse(limit.name, limit.refusal(key, rate, now, wait))

    def refund(self, items: int, size: int) -> None:
        """Take back a charge."""
        if self._bodies:
            self._refund(len(self._bodies), items, size, self._clock())

    def left(self) -> Left | None:
        """Return the items that the strictest limit leaves."""
        now = self._clock()
        found = [
            Left(rate.burst, limit.rates.remaining(key, rate, now), limit.rates.reset_after(key, now))
            for limit, key, rate in self._bodies
            if limit.unit == "items"
        ]
        return min(found, key=lambda left: left.remaining, default=None)

    def _refund(self, count: int, items: int, size: int, now: float) -> None:
        for limit, key, rate in self._bodies[:count]:
            limit.rates.refund(key, rate, now, items if limit.unit == "items" else size)

    def _end(self, count: int) -> None:
        for counter, key, _ in self._concurrent[:count]:
            counter.requests.end(key)

    def _refuse(self, name: str, error: RateLimitedError) -> None:
        self._refused(name)
        # One error is raised for several requests: without this, each of them would add to its traceback.
        raise error.with_traceback(None)
