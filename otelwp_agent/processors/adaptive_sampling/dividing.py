"""Divide a request into spans to forward, to settle, and to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.projections import split_batch
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.selection import Selection
from otelwp_agent.sampling.traces import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.processors.adaptive_sampling.verdict import TraceVerdict
    from otelwp_agent.processors.adaptive_sampling.waiting import Heads
    from otelwp_agent.sampling.traces import Part, Piece, TraceRequest

_KEPT, _SAMPLED_OUT, _FILTERED, _HELD = range(4)
OUTCOMES = ((Outcome.SAMPLED_OUT, ""), (Outcome.FILTERED, ""))
"""For `Selection.settle`; spans with the code `_HELD` are not settled."""


def parts_of(
    batch: Batch, request: TraceRequest, pieces: Sequence[Piece], waiting: list[int], heads: Heads
) -> Iterable[list[Part[Receipt]]]:
    """Return the parts of each waiting piece, one for each scope and receipt; `heads` are those already in memory."""
    if len(batch.shares) == 1:
        return request.parts(waiting, heads.shared(request.heads()), batch.shares[0][0])
    parts: dict[bytes, list[Part[Receipt]]] = {pieces[place][0]: [] for place in waiting}
    for share in split_batch(batch, [items for _, items in batch.shares]):
        own, theirs = read(share.body)
        found = own.parts([*range(len(theirs))], heads.shared(own.heads()), share.shares[0][0])
        for (trace_id, *_), more in zip(theirs, found, strict=True):
            if trace_id in parts:
                parts[trace_id] += more
    return parts.values()


def select(
    batch: Batch, request: TraceRequest, pieces: Sequence[Piece], verdicts: Sequence[TraceVerdict | None]
) -> Selection:
    """Return the spans of a request to forward, and the outcomes of all its spans."""
    chosen = [
        None if verdict is None or not verdict.passes else verdict.choose(request, place, states=bool(piece[4]))
        for place, (piece, verdict) in enumerate(zip(pieces, verdicts, strict=True))
    ]
    codes = bytes([_HELD if verdict is None else _code(verdict) for verdict in verdicts])
    return Selection(batch, request.select(chosen) if _KEPT in codes else b"", request.spread(codes))


def dropped(
    batch: Batch, request: TraceRequest, pieces: Sequence[Piece], verdicts: Sequence[TraceVerdict | None]
) -> tuple[bytes, list[bytes]]:
    """Return a request with the spans that are dropped by probability, and their trace ids."""
    drops = [verdict is not None and verdict.drops for verdict in verdicts]
    ids = [piece[0] for piece, is_dropped in zip(pieces, drops, strict=True) if is_dropped]
    if len(ids) == len(pieces):
        return batch.body, ids
    return request.select([b"" if is_dropped else None for is_dropped in drops]), ids


def _code(verdict: TraceVerdict) -> int:
    if verdict.passes:
        return _KEPT
    return _FILTERED if verdict.filtered else _SAMPLED_OUT
