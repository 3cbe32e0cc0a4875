"""What may pass of a batch that did not: its parts.

One that is too large is cut to the size that may be sent, or halved where nobody knows it. One that is malformed and
was merged from several requests is halved between them, until the malformed one stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import MalformedError, PermanentError, TooLargeError
from otelwp_agent.model.projections import split_batch, split_bytes, split_receipts
from otelwp_agent.sending.queued_batch import Suspicion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.queued_batch import QueuedBatch

REFUSALS_BEFORE_GIVING_UP = 64
"""Parts of one batch that may be refused as malformed before any is taken. The hunt goes breadth first, so by then
every 32nd of the batch is known to be refused: no bad sender among good ones, but a backend that refuses everything."""


def parts_of(
    entry: QueuedBatch, error: PermanentError, limit: int | None = None
) -> tuple[Sequence[Batch], PermanentError]:
    """Return the parts of what was refused with `error`, none if they cannot help; and why it is refused then.

    `limit` is the size in bytes above which it is too large, if that is known.
    """
    batch = entry.batch
    too_large = isinstance(error, TooLargeError)
    if not too_large and not (isinstance(error, MalformedError) and _is_worth_a_hunt(entry)):
        return (), error
    if batch.items < 2 or batch.encodings:  # noqa: PLR2004 - two parts
        return (), error
    try:
        parts = (
            split_receipts(batch) if not too_large else _halves(batch) if limit is None else split_bytes(batch, limit)
        )
    except MalformedError as unreadable:
        return (), unreadable
    return (parts if len(parts) > 1 else ()), error


def _is_worth_a_hunt(entry: QueuedBatch) -> bool:
    """Tell one bad sender among good ones from a backend that refuses everything."""
    suspicion = entry.suspicion = entry.suspicion or Suspicion()
    suspicion.refused += 1
    return suspicion.taken or suspicion.refused <= REFUSALS_BEFORE_GIVING_UP


def _halves(batch: Batch) -> list[Batch]:
    half = batch.items // 2
    return split_batch(batch, [half, batch.items - half])
