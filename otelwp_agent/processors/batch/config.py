"""The settings of `batch`."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from otelwp_agent.component import ComponentConfig
from otelwp_agent.config.types import ByteSize, Duration  # noqa: TC001 - pydantic reads them


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
