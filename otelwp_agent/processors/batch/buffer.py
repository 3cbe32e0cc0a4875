"""Collect batches that may be merged, with the sums of their items and bytes.

No clock and no I/O: the owner of a buffer decides when to merge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.batch import merge

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch, Origin


class Buffer:
    """Batches of one signal and one set of encodings, in the order in which they were added."""

    __slots__ = ("batches", "items", "size")

    def __init__(self) -> None:
        """Start empty."""
        self.batches: list[Batch] = []
        self.items = 0
        self.size = 0
        """Bytes of all bodies."""

    def add(self, batch: Batch) -> None:
        """Append a batch."""
        self.batches.append(batch)
        self.items += batch.items
        self.size += len(batch.body)

    def take(self, origin: Origin | None = None) -> Batch | None:
        """Merge all batches into one, empty the buffer and return the merged batch; `None` if the buffer is empty.

        The merged batch has the origin `origin`; if that is left out, the origin of the first batch.
        """
        if not self.batches:
            return None
        merged = merge(self.batches, origin)
        self.batches = []
        self.items = self.size = 0
        return merged
