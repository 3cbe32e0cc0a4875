"""What `batch` collects together, and what the next stage has refused of it."""

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
    """What is collected together."""

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
        """What the next stage refused, in parts."""
        self.trigger = Counter()
        """What made it to be handed on."""
        self.offer: Offer | None = None
        """Offers again what is blocked. Set when the next stage refuses for the first time, like …"""
        self.capacity: Capacity | None = None
        """… what those wait for who were refused because this group is full."""
        self.full = False
        """Whether it is counted among those that can collect no more."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """What tells it from other groups; "" for one that no tenant and no metadata sets apart."""
        return " ".join(filter(None, (self.tenant, *self.metadata)))
