"""Find the most frequent keys among too many to count: the space-saving sketch (Metwally, Agrawal, El Abbadi, 2005)."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", str, tuple[str, ...])


class SpaceSaving(Generic[K]):
    """Counts at most `capacity` keys; a new key replaces the least frequent one and inherits its count.

    A count is never too low, and too high by at most the inherited count. Every key that makes up more than 1 /
    capacity of the total is counted.
    """

    __slots__ = ("_capacity", "_counts", "_heap")

    def __init__(self, capacity: int) -> None:
        """Create a sketch of up to `capacity` keys."""
        self._capacity = capacity
        self._counts: dict[K, list[int]] = {}
        """By key: its count, and the inherited part of it, by which it may be too high."""
        self._heap: list[tuple[int, K]] = []
        """A lower bound of each count; it is updated when it reaches the top."""

    def __len__(self) -> int:
        """Return the number of counted keys."""
        return len(self._counts)

    def add(self, key: K) -> None:
        """Count a key once."""
        entry = self._counts.get(key)
        if entry is not None:
            entry[0] += 1
        elif len(self._counts) < self._capacity:
            self._counts[key] = [1, 0]
            heapq.heappush(self._heap, (1, key))
        else:
            least, removed = self._heap[0]
            while self._counts[removed][0] != least:
                heapq.heapreplace(self._heap, (self._counts[removed][0], removed))
                least, removed = self._heap[0]
            del self._counts[removed]
            self._counts[key] = [least + 1, least]
            heapq.heapreplace(self._heap, (least + 1, key))

    def heaviest(self, number: int) -> list[tuple[K, int]]:
        """Return up to `number` keys with lower bounds of their counts, the most frequent first."""
        sure = ((key, count - error) for key, (count, error) in self._counts.items())
        return heapq.nlargest(number, sure, key=lambda entry: (entry[1], entry[0]))

    def clear(self) -> None:
        """Remove all keys."""
        self._counts.clear()
        self._heap.clear()
