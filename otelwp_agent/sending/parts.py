"""Split a batch that was refused into parts that may be accepted.

A batch that is too large is split at the largest permitted size, or halved if that is unknown. A malformed batch that
was merged from several requests is halved between them, until the malformed one is alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import MalformedError, PermanentError, TooLargeError
from otelwp_agent.model.projections import split_batch, split_bytes, split_receipts
from otelwp_agent.sending.queued_batch import MalformedSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.queued_batch import QueuedBatch

REFUSALS_BEFORE_GIVING_UP = 64
"""Parts of one batch that may be refused as malformed before any is accepted. The search is breadth first: by then
every 32nd of the batch was refused, so the cause is not one invalid request but a backend that refuses everything."""


def parts_of(
    entry: QueuedBatch, error: PermanentError, limit: int | None = None
) -> tuple[Sequence[Batch], PermanentError]:
    """Return the parts of a batch that was refused with `error`, and the error to report if there are none.

    There are none if splitting cannot help. `limit` is the largest permitted size in bytes, if that is known.
    """
    batch = entry.batch
    too_large = isinstance(error, TooLargeError)
    if not too_large and not (isinstance(error, MalformedError) and _search_continues(entry)):
        return (), error
    if batch.encodings:
        return (), _whole(batch, error) if too_large else error
    if batch.items < 2:  # noqa: PLR2004 - two parts
        return (), error
    try:
        parts = (
            split_receipts(batch) if not too_large else _halves(batch) if limit is None else split_bytes(batch, limit)
        )
    except MalformedError as unreadable:
        return (), unreadable
    return (parts if len(parts) > 1 else ()), error


def _whole(batch: Batch, error: PermanentError) -> TooLargeError:
    """Return the error for an encoded batch that is too large, which says where to limit its size."""
    return TooLargeError(
        f"{error}; it is encoded ({', '.join(batch.encodings)}) and cannot be split: limit its size before, with "
        "`send_batch_max_size` and `send_batch_bytes` of the processor `batch`"
    )


def _search_continues(entry: QueuedBatch) -> bool:
    """Return whether to search on for the malformed request: not if the backend refuses everything."""
    search = entry.search = entry.search or MalformedSearch()
    search.refused += 1
    return search.accepted or search.refused <= REFUSALS_BEFORE_GIVING_UP


def _halves(batch: Batch) -> list[Batch]:
    half = batch.items // 2
    return split_batch(batch, [half, batch.items - half])
