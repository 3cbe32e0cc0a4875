"""Merge small requests into large batches, limited by number of items, bytes and time.

Place it after `memory_limiter` and after processors that drop items, and before processors that encode whole batches
(`compression`). Batches of different tenants, metadata values or signals are never merged, and encoded ones not at all.
When the next stage refuses a batch, the batch is kept and offered again as soon as that stage has capacity. Meanwhile
one more batch is collected; after that, senders are refused. So nothing is lost. Tenants share the bounded memory.

Example::

    processors:
      batch:
        send_batch_size: 8192
        timeout: 200ms
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from otelwp_agent.capacity import Capacity, Offer
from otelwp_agent.component import ComponentConfig, Context, Factory, Kind, Processor, Reads, Stability, Tier
from otelwp_agent.config.types import ByteSize, Duration  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, RetryableError
from otelwp_agent.fair_share import DEFAULT_SHARE
from otelwp_agent.model.merging import MergeLimits, merge_key
from otelwp_agent.model.projections import split_items
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.batch.group import Group
from otelwp_agent.processors.batch.measures import INSTRUMENTS, BatchMeasures
from otelwp_agent.processors.batch.shares import BatchShares

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Counter

_DRAIN_CHECK = 0.005
"""Seconds between two checks at shutdown whether everything has been forwarded."""
_TOTAL = 4
"""Limit of the bytes collected in all groups together, as a multiple of `send_batch_bytes`."""
_MOST_GROUPS = 10_000
"""Number of groups, about a kilobyte each without batches, from which further groups are forwarded at once."""


class Config(ComponentConfig):
    """When to forward batches, and which batches not to merge."""

    send_batch_size: int = Field(8192, ge=0)
    """Number of spans, data points or log records at which a batch is forwarded. It is a trigger, not a limit: see
    `send_batch_max_size`. 0 forwards at once."""
    send_batch_max_size: int = Field(0, ge=0)
    """Most items in a forwarded batch; larger batches are split. 0 for no limit."""
    send_batch_bytes: ByteSize = Field(4 * 2**20, ge=1)
    """Bytes at which a batch is forwarded, whatever its number of items. This bounds memory: while the next stage
    refuses, a group holds at most about twice this, and all groups together collect about four times this."""
    timeout: Duration = Field(0.2, ge=0)
    """Time after which a batch is forwarded, whatever its size. 0 forwards at once; then batches are only split by
    `send_batch_max_size`."""
    metadata_keys: list[str] = Field(default_factory=list)
    """Client headers (or gRPC metadata); upper and lower case are the same. Batches with different values of these
    headers are not merged. A forwarded batch keeps these headers and no others."""
    metadata_cardinality_limit: int = Field(1000, ge=0)
    """Most combinations of these values that are collected at the same time. A sender with one more combination is
    refused and may retry. 0 for no limit."""
    max_tenant_share: float = Field(DEFAULT_SHARE, gt=0, le=1)
    """Maximum share for one tenant of the memory and of the combinations, of what the other tenants leave free. 1 for
    no limit. Data without a tenant may use all of it."""

    @field_validator("metadata_keys")
    @classmethod
    def _unique(cls, keys: list[str]) -> list[str]:
        lower = [key.lower() for key in keys]
        duplicates = sorted({key for key in lower if lower.count(key) > 1})
        if duplicates:
            message = f"{duplicates[0]!r} is there twice: header names are the same in upper and lower case"
            raise ValueError(message)
        return lower

    @model_validator(mode="after")
    def _sizes_agree(self) -> Config:
        if self.send_batch_max_size and self.send_batch_max_size < self.send_batch_size:
            message = (
                f"send_batch_max_size ({self.send_batch_max_size}) is below send_batch_size "
                f"({self.send_batch_size}): make it greater or equal, or 0"
            )
            raise ValueError(message)
        return self


class BatchProcessor(Processor):
    """Collects batches in groups, and forwards the batch of a group when it is large or old enough.

    Invariants:

    * A group is in `_groups` only while it holds batches. Then either it has a timer for its age, or the next stage has
      refused its batch (`blocked`) and its `offer` waits for capacity of that stage.
    * `_blocked` is the number of blocked groups. `_full` is the number of blocked groups that can collect no more for a
      reason that applies to all groups. So `admit` only compares numbers; its cost does not depend on the number of
      groups.
    """

    buffers = True

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments."""
        super().__init__(context)
        self._passes = config.timeout == 0 or config.send_batch_size == 0
        self._limits = MergeLimits(items=config.send_batch_size, size=config.send_batch_bytes)
        self._most_bytes = _TOTAL * config.send_batch_bytes
        self._max_items = config.send_batch_max_size
        self._timeout = config.timeout
        self._metadata_keys = self.headers = tuple(config.metadata_keys)
        most_groups = config.metadata_cardinality_limit if config.metadata_keys else 0
        self._shares = BatchShares(self._most_bytes, most_groups, config.max_tenant_share)
        self._groups: dict[tuple[object, ...], Group] = {}
        self._last: Group | None = None
        self._held = 0
        """Bytes of all batches held here."""
        self._blocked = 0
        """Number of groups whose batch the next stage refused."""
        self._full = 0
        """Number of blocked groups that can collect no more, except those that wait for a tenant's own share."""
        self._capacity = Capacity(f"processors/{context.id}", context.clock)
        """Capacity of all groups together."""
        self._measures = BatchMeasures(context)

    @property
    def holds(self) -> bool:
        """Whether it holds a batch."""
        return bool(self._groups)

    def consume(self, batch: Batch) -> None:
        """Collect the batch; raise `Overloaded` if there is no capacity for it."""
        if batch.encodings:
            self.next.consume(batch)  # it can neither be merged nor split
            return
        if self._passes:
            self._pass(batch)
            return
        group = self._last
        key = merge_key(batch, self._metadata_keys)
        if group is None or group.key != key:  # comparing is faster than hashing the key
            group = self._group_of(key, batch)
        if self._blocked and not batch.admitted:
            refusal = self._refusal_in(group, batch)
            if refusal is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
        complete = group.merger.add(batch)
        self._hold(group, len(batch.body))
        if self._blocked and group.blocked is not None:
            self._note_full(group)
        elif complete or self._held >= self._most_bytes or len(self._groups) > _MOST_GROUPS:
            self._flush(group, self._measures.size_trigger)
        elif group.timer is None:
            group.timer = asyncio.get_running_loop().call_later(self._timeout, self._on_timeout, group)

    def admit(self) -> None:
        """Raise `Overloaded` while every batch would be refused."""
        if self._blocked and (self._full == len(self._groups) or self._held >= self._most_bytes):
            raise self._overloaded()

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now, else `None`."""
        if batch.encodings:
            return self.next.refusal(batch)
        group = self._groups.get(merge_key(batch, self._metadata_keys)) if self._groups else None
        if self._passes:
            return self.next.refusal(batch) if group is None else self._overloaded(group)
        if group is None:
            return self._refusal_of_new_group(batch)
        return self._refusal_in(group, batch) if self._blocked else None

    def rewired(self) -> None:
        """Offer the batches again that the next stage has refused."""
        for group in tuple(self._groups.values()):
            if group.offer is not None:
                group.offer.again()

    async def shutdown(self) -> None:
        """Forward all batches, without a time limit; when cancelled, settle the remaining batches as dropped."""
        self._passes = True
        try:
            for group in list(self._groups.values()):
                self._flush(group, self._measures.timeout_trigger)
            while self._groups:  # noqa: ASYNC110 - the offers of the groups forward them
                await asyncio.sleep(_DRAIN_CHECK)
        finally:
            self._drop_everything()

    def _pass(self, batch: Batch) -> None:
        """Forward the batch now, in parts if it is too large.

        If the next stage refuses the first part, the batch is refused; if it refuses a later part, the rest waits.
        """
        key = merge_key(batch, self._metadata_keys)
        if key in self._groups:  # an earlier batch of the group waits: this one must not overtake it
            raise self._overloaded(self._groups[key])
        parts = deque(split_items(batch, self._max_items) if self._max_items else [batch])
        first = parts.popleft()
        self.next.consume(first)
        self._measures.sent(first, self._measures.size_trigger)
        if parts:
            self._forward(self._new_group(key, batch), parts, self._measures.size_trigger)

    def _group_of(self, key: tuple[object, ...], batch: Batch) -> Group:
        """Return the group of the batch; create it if there is none; raise `Overloaded` if it cannot be created."""
        group = self._groups.get(key)
        if group is None:
            refusal = self._refusal_of_new_group(batch)
            if refusal is not None and not batch.admitted:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
            group = self._new_group(key, batch)
        self._last = group
        return group

    def _new_group(self, key: tuple[object, ...], batch: Batch) -> Group:
        group = self._groups[key] = Group(key, batch.origin, self._metadata_keys, self._limits)
        self._shares.add_groups(group.origin.tenant, 1)
        self._measures.cardinality.value += 1
        return group

    def _refusal_of_new_group(self, batch: Batch) -> Overloaded | None:
        """Return the error if no further group can be created for the batch, else `None`."""
        refusal = self._shares.group_refusal(batch.origin.tenant, len(self._groups), max(1.0, self._timeout))
        if refusal is not None or not self._blocked:
            return refusal
        if self._held >= self._most_bytes or len(self._groups) >= _MOST_GROUPS:
            return self._overloaded()
        return self._shares.refusal(batch, self._held)

    def _refusal_in(self, group: Group, batch: Batch) -> Overloaded | None:
        """Return the error if a group cannot collect the batch while any group is blocked, else `None`."""
        if (group.blocked is not None and group.merger.complete) or self._held >= self._most_bytes:
            return self._overloaded(group)
        refusal = self._shares.refusal(batch, self._held)
        return refusal if refusal is None or group.blocked is None else self._overloaded(group)

    def _hold(self, group: Group, size: int) -> None:
        """Add `size` bytes to what is held here; a negative number releases."""
        self._held += size
        if group.origin.tenant:
            self._shares.hold(group.origin.tenant, size)

    def _note_full(self, group: Group) -> None:
        """Count a blocked group that can collect no more, unless it waits for the share of one tenant only."""
        if group.full or not group.merger.complete:
            return
        capacity = group.offer.capacity if group.offer is not None else None
        if capacity is None or not capacity.share:
            group.full = True
            self._full += 1

    def _overloaded(self, group: Group | None = None) -> Overloaded:
        """Return the error for a batch of `group`, or for any batch if all groups together are full."""
        message = "the batch processor is full: the next stage refuses batches"
        capacity = self._capacity
        if group is not None and group.offer is not None and group.blocked and self._held < self._most_bytes:
            if group.capacity is None:
                group.capacity = Capacity(capacity.owner, self.context.clock, share=group.name)
            capacity = group.capacity
            capacity.cause = group.offer.capacity
        capacity.refuse()
        tenant = group.refused_tenant if group is not None and group.blocked else ""
        return Overloaded(message, retry_after=1.0, capacity=capacity, tenant=tenant)

    def _on_timeout(self, group: Group) -> None:
        group.timer = None
        self._flush(group, self._measures.timeout_trigger)

    def _flush(self, group: Group, trigger: Counter) -> None:
        """Forward the batches that a group has collected, unless it waits for the next stage."""
        if group.blocked is not None:
            return
        merger = group.merger
        self._hold(group, -merger.size)
        parts = deque(self._split(merger.take(group.origin)) if merger.batches else ())
        if trigger is self._measures.size_trigger and len(parts) > 1 and parts[-1].items < self._limits.items:
            rest = parts.pop()
            merger.add(rest)
            self._hold(group, len(rest.body))
        self._forward(group, parts, trigger)

    def _split(self, merged: Batch) -> list[Batch]:
        """Split a batch by `send_batch_max_size`.

        A malformed batch is returned whole: the exporter splits it to find the malformed request.
        """
        if not self._max_items:
            return [merged]
        try:
            return split_items(merged, self._max_items)
        except MalformedError:
            return [merged]

    def _forward(self, group: Group, parts: deque[Batch], trigger: Counter) -> None:
        """Forward the parts, then set a timer for the group, forward its batch or remove it."""
        while parts:
            part = parts[0]
            try:
                self.next.consume(part)
            except RetryableError as refusal:
                self._block(group, parts, trigger, refusal)
                return
            except ConsumeError as error:
                part.settle(Outcome.DROPPED, error.reason)
                self._log_drop(error.reason, part.items, str(error))
            else:
                self._measures.sent(part, trigger)
            parts.popleft()
        if group.offer is not None:
            group.offer.accepted()
        self._continue(group)

    def _block(self, group: Group, parts: deque[Batch], trigger: Counter, refusal: RetryableError) -> None:
        """Keep the refused parts, and offer them again when the next stage has capacity."""
        self._measures.refused_by_next.add()
        self._blocked += 1
        group.blocked = parts
        group.trigger = trigger
        group.refused_tenant = refusal.tenant if isinstance(refusal, Overloaded) else ""
        self._hold(group, sum([len(part.body) for part in parts]))
        group.stop_timer()
        if group.offer is None:
            group.offer = Offer(lambda: self._offer_again(group))
        group.offer.wait(refusal)
        self._capacity.cause = refusal.capacity
        self._note_full(group)

    def _offer_again(self, group: Group) -> None:
        parts = group.blocked
        assert parts is not None  # noqa: S101 - an offer only waits while the group is blocked
        self._unblock(group)
        self._forward(group, parts, group.trigger)
        if group.blocked is None and group.capacity is not None:
            group.capacity.freed()
        if self._capacity.watched and not (self._blocked and self._held >= self._most_bytes):
            self._capacity.freed()

    def _unblock(self, group: Group) -> None:
        assert group.blocked is not None  # noqa: S101 - callers check it
        self._hold(group, -sum([len(part.body) for part in group.blocked]))
        group.blocked = None
        self._blocked -= 1
        if group.full:
            group.full = False
            self._full -= 1

    def _continue(self, group: Group) -> None:
        """Remove a group that has collected nothing since its batch was forwarded; else forward it or set its timer."""
        if not group.merger.batches:
            self._remove(group)
        elif self._passes:
            self._flush(group, self._measures.timeout_trigger)
        elif group.merger.complete:
            self._flush(group, self._measures.size_trigger)
        else:
            group.start_timer(self._timeout, self._on_timeout)

    def _remove(self, group: Group) -> None:
        group.close()
        if self._last is group:
            self._last = None
        if self._groups.pop(group.key, None) is not None:
            self._shares.add_groups(group.origin.tenant, -1)
            self._measures.cardinality.value -= 1

    def _drop_everything(self) -> None:
        for group in list(self._groups.values()):
            remaining = [*(group.blocked or ()), *group.merger.batches]
            self._hold(group, -group.merger.size)
            if group.blocked is not None:
                self._unblock(group)
            if dropped := sum([batch.abandon() for batch in remaining]):
                self._log_drop("shutdown", dropped, "the next stage had no capacity before the shutdown ended")
            self._remove(group)
        self._held = 0

    def _log_drop(self, reason: str, items: int, error: str) -> None:
        self.context.log.error("batch dropped", reason=reason, items=items, error=error)


FACTORY = Factory(
    Kind.PROCESSOR,
    "batch",
    Config,
    BatchProcessor,
    stability=Stability.STABLE,
    tier=Tier.PRO,
    reads=Reads.OPAQUE,
    instruments=INSTRUMENTS,
)
