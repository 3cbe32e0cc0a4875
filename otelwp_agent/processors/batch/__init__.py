"""Merge small requests into large ones, by number, by bytes and by time.

It belongs after `memory_limiter` and after whatever drops items, before whatever treats a batch as a whole
(`compression`). Batches of different tenants, metadata values, encodings or signals are never mixed. When the next
stage refuses a batch, it is kept and offered again; meanwhile one more batch is collected, then senders are refused:
nothing is lost, and memory is bounded.

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

from otelwp_agent.component import ComponentConfig, Context, Factory, Kind, Processor, Reads, Stability, Tier
from otelwp_agent.config.types import ByteSize, Duration  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.projections import split_items
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.batch.buffer import Buffer
from otelwp_agent.telemetry.metrics import Counter, Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal

SEND_SIZE = Instrument(
    "otelcol_processor_batch_batch_send_size",
    "Items in a batch that was handed on",
    InstrumentKind.HISTOGRAM,
    ("processor",),
    (
        *(10, 25, 50, 75, 100, 250, 500, 750, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000),
        *(10_000, 20_000, 30_000, 50_000, 100_000),
    ),
)
SEND_SIZE_BYTES = Instrument(
    "otelcol_processor_batch_batch_send_size_bytes",
    "Bytes in a batch that was handed on",
    InstrumentKind.HISTOGRAM,
    ("processor",),
    tuple(2.0**power for power in range(7, 25)),
)
SIZE_TRIGGER = Instrument(
    "otelcol_processor_batch_batch_size_trigger_send",
    "Batches handed on because they were large enough",
    labels=("processor",),
)
TIMEOUT_TRIGGER = Instrument(
    "otelcol_processor_batch_timeout_trigger_send",
    "Batches handed on because they were old enough",
    labels=("processor",),
)
CARDINALITY = Instrument(
    "otelcol_processor_batch_metadata_cardinality",
    "Combinations of tenant, metadata values and encodings being collected now",
    InstrumentKind.GAUGE,
    ("processor",),
)
REFUSED_BY_NEXT = Instrument(
    "otelwp_processor_batch_next_refused",
    "Times that the next stage had no room for a batch, which was kept to be offered again",
    labels=("processor",),
)

_FIRST_RETRY = 0.005
_LONGEST_RETRY = 0.05
"""Seconds between offers of a batch that the next stage refused: the first, doubled up to the longest."""

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

    Invariant: a group is in `_groups` exactly while it holds something, and then has a timer: for its age, or, while
    the next stage refuses, for the next offer.
    """

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
        self._groups: dict[tuple[object, ...], _Group] = {}
        self._last: _Group | None = None
        self._held = 0
        """Bytes of everything that waits here."""
        self._blocked = 0
        """Groups whose batch the next stage refused."""
        name = str(context.id)
        self._send_size = context.registry.histogram(SEND_SIZE, processor=name)
        self._send_size_bytes = context.registry.histogram(SEND_SIZE_BYTES, processor=name)
        self._size_trigger = context.registry.counter(SIZE_TRIGGER, processor=name)
        self._timeout_trigger = context.registry.counter(TIMEOUT_TRIGGER, processor=name)
        self._cardinality = context.registry.gauge(CARDINALITY, processor=name)
        self._refused_by_next = context.registry.counter(REFUSED_BY_NEXT, processor=name)

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
        if self._blocked and self._refuses(group):
            raise _overloaded()
        buffer = group.buffer
        buffer.add(batch)
        self._held += len(batch.body)
        if buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes or self._held >= self._most_bytes:
            self._flush(group, self._size_trigger)
        elif group.timer is None:
            group.timer = asyncio.get_running_loop().call_later(self._timeout, self._on_timeout, group)

    def admit(self) -> None:
        """Raise `Overloaded` while nobody could be taken."""
        if self._blocked and all(map(self._refuses, self._groups.values())):
            raise _overloaded()

    async def shutdown(self) -> None:
        """Hand on everything, for as long as it takes; when cancelled, settle what is left as dropped."""
        self._passes = True
        try:
            for group in list(self._groups.values()):
                self._flush(group, self._timeout_trigger)
            while self._groups:  # noqa: ASYNC110 - their timers do the work
                await asyncio.sleep(_FIRST_RETRY)
        finally:
            self._drop_everything()

    def _pass(self, batch: Batch) -> None:
        """Hand the batch on now, in parts if it is too large. Once one is taken the batch is, and the rest waits."""
        if self._groups and self._key(batch) in self._groups:
            # What came before waits: it must not be overtaken, and there is no room to wait in.
            raise _overloaded()
        parts = deque(split_items(batch, self._max_items) if self._max_items else [batch])
        first = parts.popleft()
        self.next.consume(first)
        self._count(first, self._size_trigger)
        if parts:
            self._hand_on(self._new_group(self._key(batch), batch), parts, self._size_trigger)

    def _key(self, batch: Batch) -> tuple[object, ...]:
        origin = batch.origin
        return (batch.signal, origin.tenant, batch.encodings, *self._metadata(origin))

    def _metadata(self, origin: Origin) -> tuple[str | None, ...]:
        headers = origin.headers
        return tuple([headers.get(key) for key in self._metadata_keys])

    def _group_of(self, batch: Batch) -> _Group:
        """Return the group that the batch belongs to, a new one if need be; raise `Overloaded` if there may be none."""
        key = self._key(batch)
        group = self._groups.get(key)
        if group is None:
            if self._most_groups and len(self._groups) >= self._most_groups:
                message = f"more than {self._most_groups} combinations of metadata values at once"
                raise Overloaded(message, retry_after=max(1.0, self._timeout), reason="metadata_cardinality")
            if self._blocked and self._held >= self._most_bytes:
                raise _overloaded()
            group = self._new_group(key, batch)
        self._last = group
        return group

    def _new_group(self, key: tuple[object, ...], batch: Batch) -> _Group:
        group = self._groups[key] = _Group(key, batch, self._metadata_keys, self._metadata(batch.origin))
        self._cardinality.value += 1
        return group

    def _refuses(self, group: _Group) -> bool:
        """Whether there is no room: the group waits for the next stage and is full, or all groups together are."""
        buffer = group.buffer
        full = buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes
        return (group.blocked is not None and full) or self._held >= self._most_bytes

    def _on_timeout(self, group: _Group) -> None:
        group.timer = None
        self._flush(group, self._timeout_trigger)

    def _flush(self, group: _Group, trigger: Counter) -> None:
        """Hand on what a group has collected, unless it still waits for the next stage."""
        if group.blocked is not None:
            return
        buffer = group.buffer
        self._held -= buffer.size
        merged = buffer.take(group.origin)
        parts = deque(self._split(merged)) if merged is not None else deque()
        if trigger is self._size_trigger and len(parts) > 1 and parts[-1].items < self._trigger_items:
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

    def _hand_on(self, group: _Group, parts: deque[Batch], trigger: Counter) -> None:
        """Hand the parts on, and plan what comes next for the group."""
        while parts:
            part = parts[0]
            try:
                self.next.consume(part)
            except RetryableError:
                self._block(group, parts, trigger)
                return
            except ConsumeError as error:
                part.settle(Outcome.DROPPED, error.reason)
                self._log_drop(error.reason, part.items, str(error))
            else:
                self._count(part, trigger)
            parts.popleft()
        group.retry = _FIRST_RETRY
        self._rest(group)

    def _block(self, group: _Group, parts: deque[Batch], trigger: Counter) -> None:
        """Keep what was refused, and plan to offer it again."""
        self._refused_by_next.add()
        self._blocked += 1
        group.blocked = parts
        group.trigger = trigger
        self._held += sum([len(part.body) for part in parts])
        self._set_timer(group, group.retry, self._offer_again)
        group.retry = min(group.retry * 2, _LONGEST_RETRY)

    def _offer_again(self, group: _Group) -> None:
        parts = group.blocked
        assert parts is not None  # noqa: S101 - its timer says so
        group.blocked = None
        group.timer = None
        self._blocked -= 1
        self._held -= sum([len(part.body) for part in parts])
        self._hand_on(group, parts, group.trigger)

    def _rest(self, group: _Group) -> None:
        """Plan for what a group has collected since it handed on; forget the group if that is nothing."""
        buffer = group.buffer
        if not buffer.batches:
            self._forget(group)
        elif self._passes:
            self._flush(group, self._timeout_trigger)
        elif buffer.items >= self._trigger_items or buffer.size >= self._trigger_bytes:
            self._flush(group, self._size_trigger)
        else:
            self._set_timer(group, self._timeout, self._on_timeout)

    def _set_timer(self, group: _Group, delay: float, callback: Callable[[_Group], None]) -> None:
        if group.timer is not None:
            group.timer.cancel()
        group.timer = asyncio.get_running_loop().call_later(delay, callback, group)

    def _forget(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if self._last is group:
            self._last = None
        if self._groups.pop(group.key, None) is not None:
            self._cardinality.value -= 1

    def _count(self, part: Batch, trigger: Counter) -> None:
        trigger.add()
        self._send_size.observe(part.items)
        self._send_size_bytes.observe(len(part.body))

    def _drop_everything(self) -> None:
        for group in list(self._groups.values()):
            left = [*(group.blocked or ()), *group.buffer.batches]
            dropped = sum([batch.abandon() for batch in left])
            if dropped:
                self._log_drop("shutdown", dropped, "the next stage had no room in time")
            self._forget(group)
        self._held = self._blocked = 0

    def _log_drop(self, reason: str, items: int, error: str) -> None:
        self.context.log.error("batch dropped", reason=reason, items=items, error=error)


class _Group:
    """What is collected together."""

    __slots__ = (
        "blocked", "buffer", "encodings", "key", "metadata", "origin", "retry", "signal", "tenant", "timer", "trigger",
    )  # fmt: skip

    def __init__(
        self, key: tuple[object, ...], batch: Batch, names: tuple[str, ...], metadata: tuple[str | None, ...]
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
        self.retry = _FIRST_RETRY
        self.timer: asyncio.TimerHandle | None = None


def _overloaded() -> Overloaded:
    return Overloaded("the batch processor is full: the next stage takes nothing", retry_after=1.0)


FACTORY = Factory(
    Kind.PROCESSOR,
    "batch",
    Config,
    BatchProcessor,
    stability=Stability.STABLE,
    tier=Tier.PRO,
    reads=Reads.OPAQUE,
    instruments=(SEND_SIZE, SEND_SIZE_BYTES, SIZE_TRIGGER, TIMEOUT_TRIGGER, CARDINALITY, REFUSED_BY_NEXT),
)
