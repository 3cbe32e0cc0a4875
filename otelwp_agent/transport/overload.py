"""What a receiver says yes to and throws away, because its senders would make a visitor wait if it said no.

PHP exporters retry inside the page: a 503 costs the visitor 0.6 seconds, `Retry-After: 2` six. So beside PHP a full
pipeline drops the newest, visibly: counted by site, logged, and the receiver's health bad for a minute after the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from otelwp_agent.model.site import Sites
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Counter, Instrument, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.errors import ConsumeError

DROPPED_REQUESTS = Instrument(
    "otelwp_receiver_dropped_requests",
    "Requests that were answered with success and dropped, because there was no room (`on_overload: accept_and_drop`).",
    labels=("receiver", "site"),
)
DROPPED_ITEMS = Instrument(
    "otelwp_receiver_dropped_items",
    "Spans, data points and log records in those requests, where they had been counted before there was no room.",
    labels=("receiver", "site"),
)
INSTRUMENTS = (DROPPED_REQUESTS, DROPPED_ITEMS)

SHOWN = 60.0
"""Seconds after the last drop for which the receiver's health is bad."""

OnOverload = Literal["refuse", "accept_and_drop"]


class Drops:
    """One receiver's account of what it dropped."""

    def __init__(
        self,
        receiver: str,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        """Count for the component `receiver`; `clock` is seconds, monotonic."""
        self._receiver = receiver
        self._registry = registry
        self._log = log
        self._clock = clock
        self._limit = LogLimit(clock, SHOWN)
        self._sites = Sites()
        self._counters: dict[str, tuple[Counter, Counter]] = {}
        self._last = float("-inf")
        self._requests = self._items = 0
        self._reason = ""

    def when(self, on_overload: OnOverload) -> Drops | None:
        """Return itself where overload means to drop, `None` where it means to refuse."""
        return self if on_overload == "accept_and_drop" else None

    def add(self, error: ConsumeError, user_agent: str = "") -> int:
        """Count one request that `error` left no room for; return the items in it, 0 if nobody knows them."""
        site = self._sites.name(user_agent)
        counters = self._counters.get(site)
        if counters is None:
            counters = self._counters[site] = (
                self._registry.counter(DROPPED_REQUESTS, receiver=self._receiver, site=site),
                self._registry.counter(DROPPED_ITEMS, receiver=self._receiver, site=site),
            )
        items = error.items
        counters[0].add()
        counters[1].add(items)
        now = self._clock()
        if now - self._last > SHOWN:
            self._requests = self._items = 0
        self._last = now
        self._requests += 1
        self._items += items
        self._reason = str(error)
        if requests := self._limit.take():
            self._log.error("requests dropped", requests=requests, reason=self._reason)
        return items

    def state(self) -> tuple[bool, str, Mapping[str, int]] | None:
        """Return whether all is well, why not, and the counts; `None` if nothing was ever dropped."""
        if not self._requests:
            return None
        details = {"dropped_requests": self._requests, "dropped_items": self._items}
        if self._clock() - self._last > SHOWN:
            return True, "", details
        known = f" ({self._items} items counted)" if self._items else ""
        return False, f"{self._requests} requests{known} were answered and dropped: {self._reason}", details
