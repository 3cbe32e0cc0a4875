"""Divide a request: what is handed on now, what is settled, and what waits."""

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
    from otelwp_agent.processors.adaptive_sampling.verdict import Verdict
    from otelwp_agent.processors.adaptive_sampling.waiting import Heads
    from otelwp_agent.sampling.traces import Part, Piece, Request

_KEPT, _SAMPLED_OUT, _FILTERED, _HELD = range(4)
OUTCOMES = ((Outcome.SAMPLED_OUT, ""), (Outcome.FILTERED, ""))
"""For `Selection.settle`; what is held is left alone."""


def parts_of(
    batch: Batch, request: Request, pieces: Sequence[Piece], waiting: list[int], heads: Heads
) -> Iterable[list[Part[Receipt]]]:
    """Return the parts of each piece that waits: one for each scope and receipt; `heads` are of those before."""
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


def select(batch: Batch, request: Request, pieces: Sequence[Piece], verdicts: Sequence[Verdict | None]) -> Selection:
    """Return what is kept of a request, with the verdicts on it."""
    chosen = [
        None if told is None or not told.passes else told.choose(request, place, states=bool(piece[4]))
        for place, (piece, told) in enumerate(zip(pieces, verdicts, strict=True))
    ]
    codes = bytes([_HELD if told is None else _code(told) for told in verdicts])
    return Selection(batch, request.select(chosen) if _KEPT in codes else b"", request.spread(codes))


def dropped(
    batch: Batch, request: Request, pieces: Sequence[Piece], verdicts: Sequence[Verdict | None]
) -> tuple[bytes, list[bytes]]:
    """Return a request of what chance drops of a batch, and the trace ids in it."""
    gone = [told is not None and told.drops for told in verdicts]
    ids = [piece[0] for piece, is_gone in zip(pieces, gone, strict=True) if is_gone]
    if len(ids) == len(pieces):
        return batch.body, ids
    return request.select([b"" if is_gone else None for is_gone in gone]), ids


def _code(told: Verdict) -> int:
    if told.passes:
        return _KEPT
    return _FILTERED if told.filtered else _SAMPLED_OUT
