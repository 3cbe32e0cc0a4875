"""Settings of an exporter's queue, and of its retries after a failure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import ByteSize, Duration, Ignored, NullIsPresent, PositiveDuration, Refused
from otelwp_agent.fair_share import DEFAULT_SHARE

_STORAGE = Refused(
    "storage extensions are not supported, the queue is kept in memory: remove `storage`, and name a directory in "
    "`service.journal`, which keeps acknowledged requests on disk until they are delivered, even after a crash"
)
_WAIT = Refused(
    "a queue answers as soon as it has a request: remove `wait_for_result`, and set `acknowledge: delivered` on a "
    "receiver that must wait for the result"
)
_BLOCK = Ignored("a full queue refuses at once, with a time to wait (429, 503), and the sender retries")


class CircuitBreaker(Block):
    """When to pause sending to a backend that does not answer. Meanwhile, batches wait in the queue."""

    enabled: bool = True
    """Whether sending is paused after repeated failures."""
    failures: int = Field(5, ge=1)
    """Failed attempts in a row, of any batches, after which sending is paused."""
    open_time: PositiveDuration = 5.0
    """First pause. After it one batch is tried; each time that it fails, the next pause is twice as long."""
    max_open_time: PositiveDuration = 30.0
    """Maximum pause, unless the backend itself asks for a longer one."""

    @model_validator(mode="after")
    def _times_agree(self) -> CircuitBreaker:
        """Refuse contradicting times. A default above the other limit is reduced without an error."""
        if self.open_time > self.max_open_time and "open_time" in self.model_fields_set:
            message = "open_time is above max_open_time: make max_open_time longer, too"
            raise ValueError(message)
        return self


class Retry(Block):
    """Retries of batches whose sending failed but may succeed later."""

    enabled: bool = True
    """Whether a failed batch is retried."""
    initial_interval: PositiveDuration = 5.0
    """Wait before the second attempt."""
    randomization_factor: float = Field(0.5, ge=0, le=1)
    """Fraction of each wait that is random, so that senders do not retry at the same time."""
    multiplier: float = Field(1.5, ge=1)
    """Factor by which each wait is longer than the previous one."""
    max_interval: PositiveDuration = 30.0
    """Maximum wait."""
    max_elapsed_time: Duration = 300.0
    """Give up a batch whose first attempt was this long ago. 0 never gives up. With a journal: never, unless set."""
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    """When to pause sending to a backend that does not answer."""

    @model_validator(mode="after")
    def _intervals_agree(self) -> Retry:
        """Refuse contradicting intervals. A default above the other limit is reduced without an error."""
        limit, defaults = self.max_elapsed_time, type(self).model_fields
        if not self.enabled or limit in (0, defaults["max_elapsed_time"].default):
            return self
        for name in ("initial_interval", "max_interval"):
            interval = getattr(self, name)
            if (
                self.enabled
                and 0 < limit < interval != defaults[name].default
                and limit != defaults["max_elapsed_time"].default
            ):
                message = f"max_elapsed_time is shorter than {name}: give the retries more time, or 0 for no end"
                raise ValueError(message)
        return self


class QueueBatchPartition(Block):
    """Which data are never merged into one batch."""

    metadata_keys: list[str] = Field(default_factory=list)
    """Client headers: data with different values of these headers are never merged."""

    @field_validator("metadata_keys")
    @classmethod
    def _each_once(cls, keys: list[str]) -> list[str]:
        seen: set[str] = set()
        for key in keys:
            if key.lower() in seen:
                message = f"{key!r} is given twice: upper and lower case are the same in header names"
                raise ValueError(message)
            seen.add(key.lower())
        return keys


class QueueBatch(Block):
    """Merging in the queue, like the `batch` processor before it."""

    enabled: bool = True
    """`false` means the same as no `batch`."""
    flush_timeout: PositiveDuration = 0.2
    """Maximum time to wait before sending, even below `min_size`."""
    min_size: int = Field(8192, ge=0)
    """Size at which a batch is sent."""
    max_size: int = Field(0, ge=0)
    """Maximum size of a batch. 0 means no limit."""
    sizer: Literal["items", "bytes"] | None = None
    """Unit of the two sizes. Default: that of the queue, or items."""
    partition: QueueBatchPartition = QueueBatchPartition()
    """Which data are never merged into one batch."""


class Queue(Block):
    """The queue of an exporter."""

    enabled: bool = True
    """Whether there is a queue. Without it, only one batch is sent at a time, and senders wait for it."""
    num_consumers: int = Field(10, ge=1)
    """Maximum number of batches that are sent at the same time."""
    min_concurrency: int = Field(1, ge=1)
    """Number of parallel sends to which failures and growing latency may reduce `num_consumers`. The same number as
    `num_consumers` prevents any reduction.
    """
    queue_size: int = Field(1000, ge=1)
    """Capacity in units of `sizer`, including the batches that are being sent."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """The unit of `queue_size`."""
    max_bytes: ByteSize = 8 * 2**20
    """Capacity in bytes, whatever `sizer` is, including the batches that are being sent. This limits the memory."""
    max_tenant_share: float = Field(DEFAULT_SHARE, gt=0, le=1)
    """Maximum share of the capacity for one tenant, of what the other tenants leave free. Below 1, a tenant may use all
    concurrent sends but one. 1 for no limits. Data without a tenant may use all of both.
    """
    isolate_after: PositiveDuration = 5.0
    """Time without progress after which this exporter no longer makes senders wait for other exporters.

    A full queue makes senders wait (429), so that no accepted data are lost. If there are other exporters, this lasts
    at most this long without any progress; then only this exporter drops what its queue cannot accept, until the queue
    makes progress again. With a journal, senders do not wait: data that the queue cannot accept wait on disk.
    """
    batch: Annotated[QueueBatch | None, NullIsPresent] = None
    """Merge batches in the queue. The `batch` processor does the same before the queue."""
    wait_for_result: Annotated[None, _WAIT] = None
    """Refused: a queue answers as soon as it has a request."""
    block_on_overflow: Annotated[bool, _BLOCK] = False
    """Accepted for compatibility with the Collector, without effect: a full queue refuses at once, and the sender
    retries.
    """
    storage: Annotated[None, _STORAGE] = None
    """Refused: the queue is kept in memory."""

    @model_validator(mode="before")
    @classmethod
    def _disabled_batch_is_none(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        if isinstance(data, dict) and isinstance(data.get("batch"), dict) and data["batch"].get("enabled") is False:
            return {key: value for key, value in data.items() if key != "batch"}
        return data

    @model_validator(mode="after")
    def _sizes_agree(self) -> Queue:
        batch = self.batch
        if self.min_concurrency > self.num_consumers:
            message = f"min_concurrency ({self.min_concurrency}) is above num_consumers ({self.num_consumers})"
            raise ValueError(message)
        if batch is None:
            return self
        if batch.max_size and batch.max_size < batch.min_size:
            message = f"batch.max_size ({batch.max_size}) is below batch.min_size ({batch.min_size})"
            raise ValueError(message)
        sizer = batch.sizer or ("items" if self.sizer == "requests" else self.sizer)
        if sizer == self.sizer and batch.min_size > self.queue_size:
            message = (
                f"batch.min_size ({batch.min_size}) is above queue_size ({self.queue_size}): it would never be reached"
            )
            raise ValueError(message)
        return self
