"""Divide a request: what is handed on now, what is settled, and what waits."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.selection import Selection
from otelwp_agent.model.traces import Heads, SpanView, read_heads
from otelwp_agent.processors.adaptive_sampling.waiting import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.receipt import Receipt
    from otelwp_agent.model.traces import Piece
    from otelwp_agent.processors.adaptive_sampling.deciding import Decided

_KEPT, _SAMPLED_OUT, _FILTERED, _HELD = b"\x00", b"\x01", b"\x02", b"\x03"
OUTCOMES = ((Outcome.SAMPLED_OUT, ""), (Outcome.FILTERED, ""))
"""For `Selection.settle`; what is held is left alone."""
_HEADS = 1024


class Divider:
    """Divides requests; what stands around their spans is kept once, however many traces share it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._heads: dict[tuple[bytes, bytes], Heads] = {}

    def parts(
        self, batch: Batch, view: SpanView, waiting: Sequence[tuple[object, Piece]]
    ) -> list[list[tuple[Part, int]]]:
        """Return the parts of each piece that waits, and where in each the root stands, -1 if it does not."""
        heads = [self._shared(each) for each in read_heads(batch.body)]
        segments = _segments(view, heads, batch.shares)
        items = tuple(view.items[:])  # whose slices are tuples, which take less memory than lists
        if len(segments) == 1:
            _, _, head, receipt = segments[0]
            return [[_part(head, items, piece, receipt)] for _, piece in waiting]
        parts: list[list[tuple[Part, int]]] = []
        for _, piece in waiting:
            indexes, root = piece.indexes, piece.root
            found: list[tuple[Part, int]] = []
            for start, end, head, receipt in segments:
                first, last = bisect_left(indexes, start), bisect_left(indexes, end)
                if first == last:
                    continue
                own = indexes[first:last]
                at = bisect_left(own, root) if start <= root < end else -1
                found.append((Part(head, _spans(items, own), receipt), at))
            parts.append(found)
        return parts

    def _shared(self, heads: Heads) -> Heads:
        """Return equal surroundings as one object."""
        key = (heads.resource, heads.scope)
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            known = self._heads[key] = heads
        return known


def select(batch: Batch, view: SpanView, decided: Sequence[Decided], *, states: bool) -> Selection:
    """Return what is kept of a request, with the verdicts on it; nothing of `view` can be read afterwards.

    `states`: whether any span has a trace state.
    """
    items = view.items
    chosen: list[bytes | None] = [None] * len(items)
    verdicts = bytearray(_HELD) * len(items)
    kept_any = False
    for _, indexes, told, _ in decided:
        code = _KEPT if told.passes else _FILTERED if told.filtered else _SAMPLED_OUT
        if isinstance(indexes, range):
            part = slice(indexes.start, indexes.stop)
            verdicts[part] = code * len(indexes)
            if told.passes:
                chosen[part] = told.mark(items[part], states=states)
        else:
            for index in indexes:
                verdicts[index] = code[0]
            if told.passes:
                marked = told.mark(_spans(items, indexes), states=states)
                for index, item in zip(indexes, marked, strict=True):
                    chosen[index] = item
        kept_any |= told.passes
    return Selection(batch, view.assemble(chosen) if kept_any else b"", bytes(verdicts))


def nothing_kept(batch: Batch, decided: Sequence[Decided]) -> bool:
    """Whether chance drops all of a batch, as it mostly does: then nothing needs to be divided."""
    spans = 0
    for _, indexes, told, _ in decided:
        if told.passes or told.filtered:
            return False
        spans += len(indexes)
    return spans == batch.items and spans > 0


def dropped(batch: Batch, decided: Sequence[Decided]) -> tuple[bytes, list[bytes]]:
    """Return a request of what chance drops of a batch, and the trace ids in it."""
    gone = [(key, indexes) for key, indexes, told, _ in decided if not told.passes and not told.filtered]
    ids = [trace_id_of(key) for key, _ in gone]
    if not gone or sum([len(indexes) for _, indexes in gone]) == batch.items:
        return batch.body, ids
    view = SpanView(batch.body)
    chosen: list[bytes | None] = [None] * len(view.items)
    for _, indexes in gone:
        for index in indexes:
            chosen[index] = view.items[index]
    return view.assemble(chosen), ids


def trace_id_of(key: object) -> bytes:
    """Return the trace id in what `key_of` returned."""
    trace_id = key[1] if isinstance(key, tuple) else key
    assert isinstance(trace_id, bytes)  # noqa: S101 - `key_of` made it
    return trace_id


def _part(heads: Heads, items: Sequence[bytes], piece: Piece, receipt: Receipt) -> tuple[Part, int]:
    """Return all spans of a trace as one part, and where its root stands."""
    indexes, root = piece.indexes, piece.root
    if isinstance(indexes, range):
        start = indexes.start
        return Part(heads, items[start : indexes.stop], receipt), -1 if root < 0 else root - start
    return Part(heads, _spans(items, indexes), receipt), -1 if root < 0 else bisect_left(indexes, root)


def _spans(items: Sequence[bytes], indexes: Sequence[int]) -> Sequence[bytes]:
    if isinstance(indexes, range):
        return items[indexes.start : indexes.stop]
    return tuple([items[index] for index in indexes])


def _segments(
    view: SpanView, heads: Sequence[Heads], shares: Sequence[tuple[Receipt, int]]
) -> list[tuple[int, int, Heads, Receipt]]:
    """Cut a request where another scope or another receipt begins: (first span, behind the last, …)."""
    if len(heads) == 1 and len(shares) == 1:
        return [(0, shares[0][1], heads[0], shares[0][0])]
    edges = list(pairwise(accumulate((items for _, items in shares), initial=0)))
    return [
        (max(start, first), min(end, last), head, receipt)
        for (start, end, _), head in zip(view.scopes, heads, strict=True)
        for (first, last), (receipt, _) in zip(edges, shares, strict=True)
        if max(start, first) < min(end, last)
    ]
