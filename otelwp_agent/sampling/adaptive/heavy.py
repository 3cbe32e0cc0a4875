"""Find the heavy keys among too many to count: a space-saving sketch (Metwally, Agrawal, El Abbadi, 2005)."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.sampling.adaptive.trace import Key


class SpaceSaving:
    """Counts at most `capacity` keys; a new one takes the place, and the count, of the one seen least.

    A count is never too low, and too high by at most what its place had counted before. Every key that makes up more
    than 1 / capacity of all has a place.
    """

    __slots__ = ("_capacity", "_counts", "_heap")

    def __init__(self, capacity: int) -> None:
        """Count up to `capacity` keys."""
        self._capacity = capacity
        self._counts: dict[Key, list[int]] = {}
        """The count, and by how much it may be too high."""
        self._heap: list[tuple[int, Key]] = []
        """A lower bound of each count; it is brought up to date when it comes to the top."""

    def __len__(self) -> int:
        """Return how many keys have a place."""
        return len(self._counts)

    def add(self, key: Key) -> None:
        """Count a key once."""
        entry = self._counts.get(key)
        if entry is not None:
            entry[0] += 1
        elif len(self._counts) < self._capacity:
            self._counts[key] = [1, 0]
            heapq.heappush(self._heap, (1, key))
        else:
            least, gone = self._heap[0]
            while self._counts[gone][0] != least:
                heapq.heapreplace(self._heap, (self._counts[gone][0], gone))
                least, gone = self._heap[0]
            del self._counts[gone]
            self._counts[key] = [least + 1, least]
            heapq.heapreplace(self._heap, (least + 1, key))

    def heaviest(self, number: int) -> list[tuple[Key, int]]:
        """Return up to `number` keys with how often they were seen at least, the heaviest first."""
        sure = ((key, count - error) for key, (count, error) in self._counts.items())
        return heapq.nlargest(number, sure, key=lambda entry: (entry[1], entry[0]))

    def clear(self) -> None:
        """Begin anew."""
        self._counts.clear()
        self._heap.clear()
