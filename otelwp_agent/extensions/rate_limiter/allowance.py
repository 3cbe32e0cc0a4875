"""The limits that apply to the requests of one client from one address to one route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.limiting import Left, RequestAllowance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.extensions.rate_limiter.limits import ConcurrencyLimit, RateLimit
    from otelwp_agent.extensions.rate_limiter.metrics import LimitMeasures
    from otelwp_agent.limiting.gcra import Rate

    Charged = tuple[RateLimit, str, Rate]
    """A limit, the key's value and its rate."""
    Counted = tuple[ConcurrencyLimit, str, int]
    """A limit, the key's value and the number of requests in progress that it allows."""


class Allowance(RequestAllowance):
    """Asks each limit in turn. What was counted before a limit refuses is taken back.

    A flood spends most of its time in `begin`, which therefore counts in plain numbers and raises nothing.
    """

    __slots__ = ("_banned", "_bodies", "_clock", "_concurrent", "_measures", "_requests", "_tenant")

    def __init__(  # noqa: PLR0913 - the limits by kind, and where requests are counted
        self,
        requests: Sequence[Charged],
        bodies: Sequence[Charged],
        concurrent: Sequence[Counted],
        *,
        clock: Callable[[], float],
        banned: Callable[[float], ConsumeError | None] | None,
        measures: LimitMeasures,
        tenant: str,
    ) -> None:
        """Apply limits of `requests`, of the items and bytes of `bodies`, and of `concurrent` requests.

        `banned` returns the error for a banned address, `None` for others. Requests are counted in `measures` for
        `tenant`.
        """
        self._requests = requests
        self._bodies = bodies
        self._concurrent = concurrent
        self._clock = clock
        self._banned = banned
        self._measures = measures
        self._tenant = tenant

    def begin(self) -> ConsumeError | None:
        """Count a request, or count nothing and return the error.

        A request of a sender that has no items or bytes left is refused here, before its body is read.
        """
        now = self._clock()
        if self._banned is not None and (error := self._banned(now)) is not None:
            return error
        for limit, key, rate in self._bodies:
            wait = limit.rates.wait(key, rate, now)
            if wait:
                self._measures.refused(self._tenant, limit.name)
                return limit.kept_refusal(key, rate, now, wait)
        for counter, key, most in self._concurrent:
            if not counter.requests.begin(key, most):
                self._end(counter)
                self._measures.refused(self._tenant, counter.name)
                return counter.refusal(most)
        for limit, key, rate in self._requests:
            wait = limit.rates.take(key, rate, now)
            if wait:
                self._end()
                self._return_requests(limit, now)
                self._measures.refused(self._tenant, limit.name)
                return limit.kept_refusal(key, rate, now, wait)
        self._measures.accepted(self._tenant)
        return None

    def withdraw(self) -> None:
        """Take back a request that was counted and refused for another reason."""
        self._end()
        self._return_requests(None, self._clock())

    def end(self) -> None:
        """Note that a request is no longer in progress."""
        self._end()

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
                self._measures.refused(self._tenant, limit.name)
                raise limit.refusal(key, rate, now, wait)

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

    def _return_requests(self, until: RateLimit | None, now: float) -> None:
        """Take back the request that the limits before `until`, or all, have counted."""
        for limit, key, rate in self._requests:
            if limit is until:
                return
            limit.rates.refund(key, rate, now)

    def _end(self, until: ConcurrencyLimit | None = None) -> None:
        """End the request in the limits before `until`, or in all."""
        for counter, key, _ in self._concurrent:
            if counter is until:
                return
            counter.requests.end(key)
