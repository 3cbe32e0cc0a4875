"""The state of a group of batches that `batch` merges with each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.model.batch import Origin
from otelwp_agent.model.merging import Merger
from otelwp_agent.telemetry.metrics import Counter

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from otelwp_agent.capacity import Capacity, Offer
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.merging import MergeLimits


class Group:
    """Batches that are merged with each other: the collected ones and those that the next stage has refused."""

    __slots__ = (
        "blocked", "capacity", "full", "key", "merger", "offer", "origin", "refused_tenant", "timer", "trigger",
    )  # fmt: skip

    def __init__(self, key: tuple[object, ...], first: Origin, names: Sequence[str], limits: MergeLimits) -> None:
        """Start empty. The merged batches get the origin `first`, of its headers only those in `names`."""
        self.key = key
        headers = {name: first.headers[name] for name in names if name in first.headers}
        self.origin = Origin(first.receiver, first.transport, first.tenant, headers)
        self.merger = Merger(limits)
        self.blocked: deque[Batch] | None = None
        """The refused parts of a batch, while the next stage refuses them."""
        self.refused_tenant = ""
        """The tenant whose own use was the cause of that refusal; "" if it was not a tenant's."""
        self.trigger = Counter()
        """Counter of the reason for which the refused batch was forwarded."""
        self.offer: Offer | None = None
        """Offers the refused parts again. Created when the next stage refuses for the first time."""
        self.capacity: Capacity | None = None
        """Capacity that refused senders wait for. Created when this group refuses for the first time."""
        self.full = False
        """Whether the processor counts this group in `_full`."""
        self.timer: asyncio.TimerHandle | None = None

    def start_timer(self, delay: float, callback: Callable[[Group], None]) -> None:
        """Call `callback(self)` after `delay` seconds, instead of what the timer would have called."""
        self.stop_timer()
        self.timer = asyncio.get_running_loop().call_later(delay, callback, self)

    def stop_timer(self) -> None:
        """Cancel the timer, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self) -> None:
        """Stop waiting, for time and for capacity."""
        self.stop_timer()
        if self.offer is not None:
            self.offer.cancel()

    @property
    def name(self) -> str:
        """Tenant and metadata values of the group, for logs; "" if it has neither."""
        return " ".join(filter(None, (self.origin.tenant, *self.origin.headers.values())))
