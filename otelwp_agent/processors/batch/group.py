"""The state of a group of batches that `batch` merges with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.batch import Origin
from otelwp_agent.processors.batch.buffer import Buffer
from otelwp_agent.telemetry.metrics import Counter

if TYPE_CHECKING:
    import asyncio
    from collections import deque

    from otelwp_agent.capacity import Capacity, Offer
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal


class Group:
    """Batches that are merged with each other: the collected ones and those that the next stage has refused."""

    __slots__ = (
        "blocked", "buffer", "capacity", "encodings", "full", "key", "metadata", "offer", "origin", "signal", "tenant",
        "timer", "trigger",
    )  # fmt: skip

    def __init__(
        self,
        key: tuple[object, ...],
        batch: Batch,
        names: tuple[str, ...],
        metadata: tuple[str | None, ...],
    ) -> None:
        origin = batch.origin
        headers = {name: value for name, value in zip(names, metadata, strict=True) if value is not None}
        self.key = key
        self.signal: Signal = batch.signal
        self.tenant = origin.tenant
        self.encodings = batch.encodings
        self.metadata = metadata
        self.origin = Origin(origin.receiver, origin.transport, origin.tenant, headers)
        self.buffer = Buffer()
        self.blocked: deque[Batch] | None = None
        """The refused parts of a batch, while the next stage refuses them."""
        self.trigger = Counter()
        """Counter of the reason for which the refused batch was forwarded."""
        self.offer: Offer | None = None
        """Offers the refused parts again. Created when the next stage refuses for the first time."""
        self.capacity: Capacity | None = None
        """Capacity that refused senders wait for. Created when this group refuses for the first time."""
        self.full = False
        """Whether the processor counts this group in `_full`."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Tenant and metadata values of the group, for logs; "" if it has neither."""
        return " ".join(filter(None, (self.tenant, *self.metadata)))
