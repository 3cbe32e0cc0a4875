"""Decide which batches may be merged, and merge them up to limits.

Batches of different signals or tenants are never merged, and encoded batches not at all. Which client headers must be
the same depends on the stage: `merge_key` compares chosen headers, `same_sender` all of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.model.batch import merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch, Origin


class MergeLimits(NamedTuple):
    """Sizes at which a merged batch is complete; each is a trigger, so that the last batch may exceed it."""

    items: int = sys.maxsize
    size: int = sys.maxsize
    """Bytes of the bodies."""
    batches: int = sys.maxsize


class Merger:
    """Batches that may be merged, in the order in which they were added, with the sums of their items and bytes.

    No clock and no I/O: the owner decides when to merge.
    """

    __slots__ = ("_max_batches", "_max_items", "_max_size", "batches", "items", "size")

    def __init__(self, limits: MergeLimits) -> None:
        """Start empty."""
        self._max_items, self._max_size, self._max_batches = limits
        self.batches: list[Batch] = []
        self.items = 0
        self.size = 0
        """Bytes of all bodies."""

    @property
    def complete(self) -> bool:
        """Whether a limit is reached."""
        return self.items >= self._max_items or self.size >= self._max_size or len(self.batches) >= self._max_batches

    def add(self, batch: Batch) -> bool:
        """Append a batch; return whether a limit is reached."""
        batches = self.batches
        batches.append(batch)
        self.items = items = self.items + batch.items
        self.size = size = self.size + len(batch.body)
        return items >= self._max_items or size >= self._max_size or len(batches) >= self._max_batches

    def take(self, origin: Origin | None = None) -> Batch:
        """Merge all batches into one, start empty again and return the merged batch. There must be at least one.

        The merged batch has the origin `origin`; if that is left out, the origin of the first batch.
        """
        merged = merge(self.batches, origin)
        self.batches = []
        self.items = self.size = 0
        return merged


def merge_key(batch: Batch, headers: Sequence[str]) -> tuple[object, ...]:
    """Return a hashable key: plain batches with the same key may be merged if only `headers` matter to later stages."""
    origin = batch.origin
    if not headers:
        return (batch.signal, origin.tenant)
    get = origin.headers.get
    return (batch.signal, origin.tenant, *[get(name) for name in headers])


def same_sender(one: Origin, other: Origin) -> bool:
    """Return whether two origins have the same receiver, tenant and headers.

    Plain batches of one signal with such origins may be merged without loss for later stages.
    """
    return one is other or (
        one.tenant == other.tenant and one.receiver == other.receiver and one.headers == other.headers
    )
