"""Keep some items of a batch and settle the others.

A component that drops items must first forward those that it keeps: if the next component refuses them, nothing may
have been settled, because the sender retries the whole request (`errors.ConsumeError`). So a selection has two steps:
forward `batch`, and call `settle` when it has been accepted.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch, Share
    from otelwp_agent.model.receipt import Outcome


class Selection:
    """Division of a batch into kept and dropped items.

    `verdicts` has one byte for each item, in order: 0 keeps it, any other value drops it. `body` contains the kept
    items; the attribute `batch` is `None` if there are none.
    """

    __slots__ = ("_shares", "_verdicts", "batch")

    def __init__(self, batch: Batch, body: bytes, verdicts: bytes) -> None:
        """Divide the shares of `batch` according to `verdicts`."""
        self._verdicts = verdicts
        self._shares = batch.shares
        self.batch: Batch | None = None
        total = verdicts.count(0)
        if total == len(verdicts):
            self.batch = batch.with_body(body)
        elif total:
            kept = [
                (receipt, items)
                for (receipt, _), part in zip(batch.shares, _parts(batch.shares, verdicts), strict=True)
                if (items := part.count(0))
            ]
            self.batch = batch.with_body(body, total, kept)

    def settle(self, outcomes: Sequence[tuple[Outcome, str]]) -> None:
        """Settle the dropped items: those with verdict v as `outcomes[v - 1]` (an outcome, and a reason or "").

        Items with verdicts above `len(outcomes)` are not settled, because another component holds them.
        """
        dropped = [verdict for verdict in sorted({*self._verdicts} - {0}) if verdict <= len(outcomes)]
        if not dropped:
            return
        for (receipt, _), part in zip(self._shares, _parts(self._shares, self._verdicts), strict=True):
            for verdict in dropped:
                items = part.count(verdict)
                if items:
                    receipt.settle(outcomes[verdict - 1][0], items, outcomes[verdict - 1][1])


def _parts(shares: Sequence[Share], verdicts: bytes) -> list[bytes]:
    """Divide the verdicts among the shares."""
    if len(shares) == 1:
        return [verdicts]
    edges = accumulate((items for _, items in shares), initial=0)
    return [verdicts[start:end] for start, end in pairwise(edges)]
