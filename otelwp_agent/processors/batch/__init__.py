"""Merge small requests into large ones, by number, by bytes and by time.

It belongs after `memory_limiter` and after whatever drops items, before whatever treats a batch as a whole
(`compression`). Batches of different tenants, metadata values, encodings or signals are never mixed. When the next
stage refuses a batch, it is kept and offered again as soon as that stage has capacity; meanwhile one more batch is
collected, then senders are refused: nothing is lost, and memory is bounded.

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
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.projections import split_items
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.batch.group import Group
from otelwp_agent.processors.batch.measures import INSTRUMENTS, BatchMeasures
from otelwp_agent.telemetry.metrics import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch, Origin
    from otelwp_agent.telemetry.metrics import Counter

_DRAIN_CHECK = 0.005
"""Seconds between looks whether everything has been handed on at the end."""
_TOTAL = 4
"""Bytes held at once, of all groups, in units of `send_batch_bytes`."""


class Config(ComponentConfig):
    """When to hand on, and what to keep apart."""

    send_batch_size: int = Field(8192, ge=0)
    """Hand on at this many spans, data points or log records. A trigger, no limit: see `send_batch_max_size`.
    0 hands on at once."""
    send_batch_max_size: int = Field(0, ge=0)
    """Never hand on more items at once; larger batches are split. 0 for no limit."""
    send_batch_bytes: ByteSize = Field(4 * 2**20, ge=1)
    """Hand on at this many bytes, however few the items. This bounds memory: while the next stage refuses, a group
    holds at most about twice this, and all groups together collect about four times this."""
    timeout: Duration = Field(0.2, ge=0)
    """Hand on after this long, however little there is. 0 hands on at once, split by `send_batch_max_size` alone."""
    metadata_keys: list[str] = Field(default_factory=list)
    """Client headers (or gRPC metadata), in any case, by whose values batches are kept apart. A batch carries these
    headers on, and no others."""
    metadata_cardinality_limit: int = Field(1000, ge=0)
    """Most combinations of those values that are being collected at one time; a sender beyond them is refused, and may
    try again. 0 for no limit."""

    @field_validator("metadata_keys")
    @classmethod
    def _unique(cls, keys: list[str]) -> list[str]:
        lower = [key.lower() for key in keys]
        doubled = sorted({key for key in lower if lower.count(key) > 1})
        if doubled:
            message = f"{doubled[0]!r} is there twice (upper and lower case do not count)"
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
    """Collects batches by group, and hands each group on when it is large or old enough.

    Invariants:

    * A group is in `_groups` exactly while it holds something. Then either it has a timer for its age, or the next
      stage has refused its batch (`blocked`) and its `offer` waits for capacity there.
    * `_blocked` is the number of groups that are blocked, `_full` of those among them that are full, for a reason that
      holds for all groups: `admit` compares numbers, however many groups there are.
    """

    buffers = True

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments."""
        super().__init__(context)
        self._passes = config.timeout == 0 or config.send_batch_size == 0
        self._trigger_items = config.send_batch_size
        self._trigger_bytes = config.send_batch_bytes
        self._most_bytes = _TOTAL * config.send_batch_bytes
        self._max_items = config.send_batch_max_size
        self._timeout = config.timeout
        self._metadata_keys = self.headers = tuple(config.metadata_keys)
        self._most_groups = config.metadata_cardinality_limit if config.metadata_keys else 0
        self._groups: dict[tuple[object, ...], Group] = {}
        self._last: Group | None = None
        self._held = 0
        """Bytes of everything that waits here."""
        self._blocked = 0
        """Groups whose batch the next stage refused."""
        self._full = 0
        """Those among them that can collect no more, where it is not for want of a share of their own."""
        self._capacity = Capacity(f"processors/{context.id}", context.clock)
        """Of all groups together."""
        self._measures = BatchMeasures(context)

    def consume(self, batch: Batch) -> None:
        """Collect the batch; raise `Overloaded` when there is no room for it."""
        if self._passes:
            self._pass(batch)
            return
        group = self._last
        origin = batch.origin
        if (
            group is None
            or group.tenant != origin.tenant
            or group.signal is not batch.signal
            or group.encodings != batch.encodings
            or (self._metadata_keys and group.metadata != self._metadata(origin))
        ):
            group = self._group_of(batch)
        if self._blocked and not batch.admitted and self._refuses(group):
            raise self._overloaded(group)
        buffer = group.buffer
        buffer.add(batch)
        self._held += len(batch.body)
        if self._blocked and group.blocked is not None:
            self._note_full(group)
        elif (
            buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes or self._held >= self._most_bytes
        ):
            self._flush(group, self._measures.size_trigger)
        elif group.timer is None:
            group.timer = asyncio.get_running_loop().call_later(self._timeout, self._on_timeout, group)

    def admit(self) -> None:
        """Raise `Overloaded` while nobody could be taken."""
        if self._blocked and (self._full == len(self._groups) or self._held >= self._most_bytes):
            raise self._overloaded()

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        group = self._groups.get(self._key(batch)) if self._groups else None
        if self._passes:
            return self.next.refusal(batch) if group is None else self._overloaded(group)
        if group is None:
            return self._refusal_of_new_group()
        return self._overloaded(group) if self._blocked and self._refuses(group) else None

    def rewired(self) -> None:
        """Offer again what the next stage has refused."""
        for group in tuple(self._groups.values()):
            if group.offer is not None:
                group.offer.again()

    async def shutdown(self) -> None:
        """Hand on everything, for as long as it takes; when cancelled, settle what is left as dropped."""
        self._passes = True
        try:
            for group in list(self._groups.values()):
                self._flush(group, self._measures.timeout_trigger)
            while self._groups:  # noqa: ASYNC110 - their timers do the work
                await asyncio.sleep(_DRAIN_CHECK)
        finally:
            self._drop_everything()

    def _pass(self, batch: Batch) -> None:
        """Hand the batch on now, in parts if it is too large. Once one is taken the batch is, and the rest waits."""
        if self._groups and self._key(batch) in self._groups:
            # What came before waits: it must not be overtaken, and there is no room to wait in.
            raise self._overloaded(self._groups[self._key(batch)])
        parts = deque(split_items(batch, self._max_items) if self._max_items else [batch])
        first = parts.popleft()
        self.next.consume(first)
        self._measures.sent(first, self._measures.size_trigger)
        if parts:
            self._hand_on(self._new_group(self._key(batch), batch), parts, self._measures.size_trigger)

    def _key(self, batch: Batch) -> tuple[object, ...]:
        origin = batch.origin
        return (batch.signal, origin.tenant, batch.encodings, *self._metadata(origin))

    def _metadata(self, origin: Origin) -> tuple[str | None, ...]:
        headers = origin.headers
        return tuple([headers.get(key) for key in self._metadata_keys])

    def _group_of(self, batch: Batch) -> Group:
        """Return the group that the batch belongs to, a new one if need be; raise `Overloaded` if there may be none."""
        key = self._key(batch)
        group = self._groups.get(key)
        if group is None:
            refusal = self._refusal_of_new_group()
            if refusal is not None and not batch.admitted:
                raise refusal
            group = self._new_group(key, batch)
        self._last = group
        return group

    def _new_group(self, key: tuple[object, ...], batch: Batch) -> Group:
        group = self._groups[key] = Group(key, batch, self._metadata_keys, self._metadata(batch.origin))
        self._measures.cardinality.value += 1
        return group

    def _refusal_of_new_group(self) -> Overloaded | None:
        """Return why there may be no further group, or `None`."""
        if self._most_groups and len(self._groups) >= self._most_groups:
            message = f"more than {self._most_groups} combinations of metadata values at once"
            return Overloaded(message, retry_after=max(1.0, self._timeout), reason="metadata_cardinality")
        return self._overloaded() if self._blocked and self._held >= self._most_bytes else None

    def _is_full(self, group: Group) -> bool:
        buffer = group.buffer
        return buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes

    def _refuses(self, group: Group) -> bool:
        """Whether there is no room: the group waits for the next stage and is full, or all groups together are."""
        return (group.blocked is not None and self._is_full(group)) or self._held >= self._most_bytes

    def _note_full(self, group: Group) -> None:
        """Count a blocked group that can collect no more, if nobody else could be taken either."""
        if group.full or not self._is_full(group):
            return
        waits_for = group.offer.capacity if group.offer is not None else None
        if waits_for is None or not waits_for.share:
            group.full = True
            self._full += 1

    def _overloaded(self, group: Group | None = None) -> Overloaded:
        """Return the refusal of a batch of `group`, or of any batch where all groups together are full."""
        message = "the batch processor is full: the next stage takes nothing"
        capacity = self._capacity
        if group is not None and group.offer is not None and group.blocked and self._held < self._most_bytes:
            if group.capacity is None:
                group.capacity = Capacity(capacity.owner, self.context.clock, share=group.name)
            capacity = group.capacity
            capacity.cause = group.offer.capacity
        capacity.refuse()
        return Overloaded(message, retry_after=1.0, capacity=capacity)

    def _on_timeout(self, group: Group) -> None:
        group.timer = None
        self._flush(group, self._measures.timeout_trigger)

    def _flush(self, group: Group, trigger: Counter) -> None:
        """Hand on what a group has collected, unless it still waits for the next stage."""
        if group.blocked is not None:
            return
        buffer = group.buffer
        self._held -= buffer.size
        merged = buffer.take(group.origin)
        parts = deque(self._split(merged)) if merged is not None else deque()
        if trigger is self._measures.size_trigger and len(parts) > 1 and parts[-1].items < self._trigger_items:
            rest = parts.pop()
            buffer.add(rest)
            self._held += len(rest.body)
        self._hand_on(group, parts, trigger)

    def _split(self, merged: Batch) -> list[Batch]:
        """Cut a batch by the limit; one that cannot be read goes on whole: the exporter finds out whose fault it is."""
        if not self._max_items:
            return [merged]
        try:
            return split_items(merged, self._max_items)
        except MalformedError:
            return [merged]

    def _hand_on(self, group: Group, parts: deque[Batch], trigger: Counter) -> None:
        """Hand the parts on, and plan what comes next for the group."""
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
        self._rest(group)

    def _block(self, group: Group, parts: deque[Batch], trigger: Counter, refusal: RetryableError) -> None:
        """Keep what was refused, and have it offered again when the next stage has capacity."""
        self._measures.refused_by_next.add()
        self._blocked += 1
        group.blocked = parts
        group.trigger = trigger
        self._held += sum([len(part.body) for part in parts])
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if group.offer is None:
            group.offer = Offer(lambda: self._offer_again(group))
        group.offer.wait(refusal)
        self._capacity.cause = refusal.capacity
        self._note_full(group)

    def _offer_again(self, group: Group) -> None:
        parts = group.blocked
        assert parts is not None  # noqa: S101 - its offer says so
        self._unblock(group)
        self._hand_on(group, parts, group.trigger)
        if group.blocked is None and group.capacity is not None:
            group.capacity.freed()
        if self._capacity.watched and not (self._blocked and self._held >= self._most_bytes):
            self._capacity.freed()

    def _unblock(self, group: Group) -> None:
        assert group.blocked is not None  # noqa: S101 - callers know
        self._held -= sum([len(part.body) for part in group.blocked])
        group.blocked = None
        self._blocked -= 1
        if group.full:
            group.full = False
            self._full -= 1

    def _rest(self, group: Group) -> None:
        """Plan for what a group has collected since it handed on; forget the group if that is nothing."""
        buffer = group.buffer
        if not buffer.batches:
            self._forget(group)
        elif self._passes:
            self._flush(group, self._measures.timeout_trigger)
        elif buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes:
            self._flush(group, self._measures.size_trigger)
        else:
            self._set_timer(group, self._timeout, self._on_timeout)

    def _set_timer(self, group: Group, delay: float, callback: Callable[[Group], None]) -> None:
        if group.timer is not None:
            group.timer.cancel()
        group.timer = asyncio.get_running_loop().call_later(delay, callback, group)

    def _forget(self, group: Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if group.offer is not None:
            group.offer.cancel()
        if self._last is group:
            self._last = None
        if self._groups.pop(group.key, None) is not None:
            self._measures.cardinality.value -= 1

    def _drop_everything(self) -> None:
        for group in list(self._groups.values()):
            left = [*(group.blocked or ()), *group.buffer.batches]
            if group.blocked is not None:
                self._unblock(group)
            dropped = sum([batch.abandon() for batch in left])
            if dropped:
                self._log_drop("shutdown", dropped, "the next stage had no room in time")
            self._forget(group)
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
