"""`sending_queue.batch`: merge batches before an exporter's queue, with the `batch` processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.component import Context
    from otelwp_agent.config.blocks import Queue
    from otelwp_agent.processors.batch import BatchProcessor

_NEVER = 2**62
"""Limit of items if only bytes are limited."""


def batcher(queue: Queue, context: Context) -> BatchProcessor | None:
    """Return the processor for `queue.batch`, `None` if that is not set. The caller sets its `next`."""
    settings = queue.batch
    if settings is None:
        return None
    from otelwp_agent.processors.batch import BatchProcessor, Config  # noqa: PLC0415 - loaded only if it is used

    in_bytes = _sizer(queue) == "bytes"
    config = Config.model_construct(  # the values are valid: `QueueBatch` has checked them
        send_batch_size=settings.min_size,
        send_batch_max_size=0 if in_bytes else settings.max_size,
        timeout=settings.flush_timeout,
        max_tenant_share=queue.max_tenant_share,
        metadata_keys=[key.lower() for key in settings.partition.metadata_keys],
    )
    if in_bytes and settings.min_size:
        config = config.model_copy(update={"send_batch_size": _NEVER, "send_batch_bytes": settings.min_size})
    return BatchProcessor(config, context)


def max_bytes(queue: Queue) -> int | None:
    """Return the most bytes of a batch according to `queue.batch`, `None` for no limit."""
    settings = queue.batch
    return settings.max_size or None if settings is not None and _sizer(queue) == "bytes" else None


def _sizer(queue: Queue) -> str:
    """Return the unit of `batch.min_size` and `batch.max_size`."""
    given = queue.batch.sizer if queue.batch is not None else None
    return given or ("items" if queue.sizer == "requests" else queue.sizer)
