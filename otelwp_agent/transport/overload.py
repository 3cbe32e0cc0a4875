"""Count requests that a receiver accepts and then drops, because a refusal would make a visitor wait.

PHP exporters retry within the page request: a 503 costs the visitor 0.6 seconds, `Retry-After: 2` six. Therefore a full
pipeline next to PHP drops the newest requests and reports it: they are counted by site and logged, and the receiver is
unhealthy until a minute after the last one.
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
    "Requests answered with success and dropped, because capacity was exceeded (`on_overload: accept_and_drop`).",
    labels=("receiver", "site"),
)
DROPPED_ITEMS = Instrument(
    "otelwp_receiver_dropped_items",
    "Spans, data points and log records in those requests, if they were counted before the request was dropped.",
    labels=("receiver", "site"),
)
INSTRUMENTS = (DROPPED_REQUESTS, DROPPED_ITEMS)

SHOWN = 60.0
"""Seconds after the last drop for which the receiver is unhealthy."""

OnOverload = Literal["refuse", "accept_and_drop"]


class Drops:
    """Counts and reports the requests that one receiver has dropped."""

    def __init__(
        self,
        receiver: str,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        """Count for the component `receiver`; `clock` returns monotonic seconds."""
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
        """Return itself if overload drops requests, `None` if it refuses them."""
        return self if on_overload == "accept_and_drop" else None

    def add(self, error: ConsumeError, user_agent: str = "") -> int:
        """Count one request that is dropped because of `error`; return its number of items, 0 if unknown."""
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
        """Return whether the receiver is healthy, the reason if not, and the counts; `None` if nothing was dropped."""
        if not self._requests:
            return None
        details = {"dropped_requests": self._requests, "dropped_items": self._items}
        if self._clock() - self._last > SHOWN:
            return True, "", details
        known = f" ({self._items} items counted)" if self._items else ""
        return False, f"{self._requests} requests{known} were answered and dropped: {self._reason}", details
