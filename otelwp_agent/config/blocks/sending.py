"""What stands around an exporter: the queue before it and the retries after a failure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import ByteSize, Duration, Ignored, NullIsPresent, PositiveDuration, Refused

_STORAGE = Refused(
    "there are no storage extensions here, the queue is kept in memory: remove `storage`, and name a directory in "
    "`service.journal`, which keeps what was acknowledged until it is delivered, whatever becomes of the process"
)
_WAIT = Refused(
    "a queue answers as soon as it has a request: remove `wait_for_result`, and set `acknowledge: delivered` on a "
    "receiver that shall wait for the outcome"
)
_BLOCK = Ignored("a full queue refuses at once, with a time to come back (429, 503), and the sender tries again")


class CircuitBreaker(Block):
    """When to leave alone a backend that does not answer; all that is sent waits in the queue meanwhile."""

    enabled: bool = True
    """Leave it alone."""
    failures: int = Field(5, ge=1)
    """Failed tries in a row, of whatever batches, after which nothing is tried for a while."""
    open_time: PositiveDuration = 5.0
    """How long at first; then one batch is tried, and each time that this fails, the next is twice as long."""
    max_open_time: PositiveDuration = 30.0
    """Longest time without a try, unless the backend itself asks for more."""

    @model_validator(mode="after")
    def _times_agree(self) -> CircuitBreaker:
        """Refuse what contradicts itself. A time that was left to its default is simply cut short."""
        if self.open_time > self.max_open_time and "open_time" in self.model_fields_set:
            message = "open_time is above max_open_time: make max_open_time longer, too"
            raise ValueError(message)
        return self


class Retry(Block):
    """What is done when a send fails and may succeed later."""

    enabled: bool = True
    """Try again."""
    initial_interval: PositiveDuration = 5.0
    """Wait before the second try."""
    randomization_factor: float = Field(0.5, ge=0, le=1)
    """Share of the wait that is left to chance, so that senders do not come back together."""
    multiplier: float = Field(1.5, ge=1)
    """Each wait is this many times the last."""
    max_interval: PositiveDuration = 30.0
    """Longest wait."""
    max_elapsed_time: Duration = 300.0
    """Give up what fails when it was tried first this long ago; 0 never gives up. With a journal: never, unless set."""
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    """When to leave alone a backend that does not answer."""

    @model_validator(mode="after")
    def _intervals_agree(self) -> Retry:
        """Refuse what contradicts itself. An interval that was left to its default is simply cut short."""
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
    """What is never mixed in one batch."""

    metadata_keys: list[str] = Field(default_factory=list)
    """Client headers by whose values batches are kept apart."""

    @field_validator("metadata_keys")
    @classmethod
    def _each_once(cls, keys: list[str]) -> list[str]:
        seen: set[str] = set()
        for key in keys:
            if key.lower() in seen:
                message = f"{key!r} is there twice: header names are the same in upper and lower case"
                raise ValueError(message)
            seen.add(key.lower())
        return keys


class QueueBatch(Block):
    """Merging in the queue, as the `batch` processor does before it."""

    enabled: bool = True
    """`false` is the same as leaving `batch` out."""
    flush_timeout: PositiveDuration = 0.2
    """Send after this long, however little there is."""
    min_size: int = Field(8192, ge=0)
    """Send at this size."""
    max_size: int = Field(0, ge=0)
    """Never send more at once; 0 for no limit."""
    sizer: Literal["items", "bytes"] | None = None
    """Unit of the two sizes; that of the queue, or items, if left out."""
    partition: QueueBatchPartition = QueueBatchPartition()
    """What is never mixed in one batch."""


class Queue(Block):
    """The queue before an exporter."""

    enabled: bool = True
    """Without a queue the sender waits in it for one place only."""
    num_consumers: int = Field(10, ge=1)
    """Most sends under way at once."""
    min_concurrency: int = Field(1, ge=1)
    """Sends at once that failures and growing latency always leave of `num_consumers`; the same number leaves all."""
    queue_size: int = Field(1000, ge=1)
    """Room, in units of `sizer`, counting what is being sent."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """What `queue_size` counts."""
    max_bytes: ByteSize = 8 * 2**20
    """Room in bytes, whatever `sizer` counts: this bounds memory. Counts what is being sent."""
    max_tenant_share: float = Field(0.5, gt=0, le=1)
    """Share of the room that one tenant may fill, so that others find some. Who has no tenant may fill all of it."""
    isolate_after: PositiveDuration = 5.0
    """A full queue makes senders wait (429), so that nothing that was accepted is lost. Beside other exporters it does
    so for this long at most without any progress; then this exporter alone loses what its queue cannot accept, until
    the queue makes progress again. With a journal nobody waits: what the queue cannot accept waits on disk."""
    batch: Annotated[QueueBatch | None, NullIsPresent] = None
    """Merge in the queue; the `batch` processor before it does the same."""
    wait_for_result: Annotated[None, _WAIT] = None
    """Refused: a queue answers as soon as it has a request."""
    block_on_overflow: Annotated[bool, _BLOCK] = False
    """Accepted for the Collector's sake: a full queue refuses at once, and the sender tries again."""
    storage: Annotated[None, _STORAGE] = None
    """Refused: the queue is kept in memory."""

    @model_validator(mode="before")
    @classmethod
    def _disabled_batch_is_none(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was written
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
