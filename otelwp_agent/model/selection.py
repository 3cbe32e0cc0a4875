"""Keep some items of a batch and settle the others, without settling anything that may still be refused.

A stage that drops items must hand on what it keeps first: if the next stage refuses, nothing may have been settled,
because the sender comes back with all of it (`errors.ConsumeError`). So a selection is made in two steps: `batch` is
what to hand on, and `settle` is for when it has been taken.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch, Share
    from otelwp_agent.model.receipt import Outcome


class Selection:
    """Which items of a batch stay. `verdicts` has one byte for each item, in order: 0 keeps it, anything else drops it.

    `body` holds what is kept; `batch` is `None` when that is nothing.
    """

    __slots__ = ("_shares", "_verdicts", "batch")

    def __init__(self, batch: Batch, body: bytes, verdicts: bytes) -> None:
        """Divide the shares of `batch` by the verdicts."""
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
        """Settle what was dropped: an item of verdict v as `outcomes[v - 1]` (an outcome, and a reason or "").

        Of verdicts beyond `outcomes` nothing is settled: somebody holds those items.
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
    """Cut the verdicts among the shares."""
    if len(shares) == 1:
        return [verdicts]
    edges = accumulate((items for _, items in shares), initial=0)
    return [verdicts[start:end] for start, end in pairwise(edges)]
