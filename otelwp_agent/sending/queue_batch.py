"""`sending_queue.batch`: merging on the way into an exporter's queue, done by the `batch` processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.config.types import format_duration

if TYPE_CHECKING:
    from otelwp_agent.component import Context
    from otelwp_agent.config.blocks import Queue
    from otelwp_agent.processors.batch import BatchProcessor

_NEVER = 2**62
"""Number of items that never triggers sending: used when batches are measured in bytes."""


def batcher(queue: Queue, context: Context) -> BatchProcessor | None:
    """Return a processor that merges batches as `queue.batch` configures, or `None`. The caller sets its `next`."""
    settings = queue.batch
    if settings is None:
        return None
    from otelwp_agent.processors.batch import BatchProcessor, Config  # noqa: PLC0415 - only if it is used

    in_bytes = _sizer(queue) == "bytes"
    config = {
        "send_batch_size": _NEVER if in_bytes and settings.min_size else settings.min_size,
        "send_batch_max_size": 0 if in_bytes else settings.max_size,
        "timeout": format_duration(settings.flush_timeout),
        "metadata_keys": settings.partition.metadata_keys,
    }
    if in_bytes and settings.min_size:
        config["send_batch_bytes"] = settings.min_size
    return BatchProcessor(Config.model_validate(config), context)


def max_bytes(queue: Queue) -> int | None:
    """Return the bytes that `queue.batch` allows in one batch, `None` for no limit."""
    settings = queue.batch
    return settings.max_size or None if settings is not None and _sizer(queue) == "bytes" else None


def _sizer(queue: Queue) -> str:
    """Return the unit of `batch.min_size` and `batch.max_size`."""
    given = queue.batch.sizer if queue.batch is not None else None
    return given or ("items" if queue.sizer == "requests" else queue.sizer)
