"""Choose a member of a group for a key, so that every process with the same members makes the same choice.

This is rendezvous hashing (highest random weight). Each member has a fixed pseudo-random score for each of `SLOTS`
slots. A key belongs to one slot, and the member with the highest score in this slot gets it. Therefore:

* The order of the members does not matter.
* A member that is added takes about 1/n of the keys, and no key moves between the others.
* A member that is removed gives its keys to all others in equal parts, and no other key moves.

With `loads`, no member gets more than its bound: `LOAD_BOUND` times the average load, rounded up. A key whose member
has reached its bound goes to the member with the next score.
(Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads", 2016.)
"""

from __future__ import annotations

import sys
import zlib
from array import array
from functools import lru_cache
from hashlib import shake_128
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SLOTS = 2**15
"""Number of slots. With n members, the share of one differs from 1/n by a factor of about √(n / SLOTS): 2 % of 16."""
LOAD_BOUND = 1.25
"""Highest load of a member, as a multiple of the average."""
_MOST = 1024
"""Members whose scores are remembered, at 128 KiB each."""


class Rendezvous:
    """Chooses among `members`, which are names such as endpoints. It never changes: make another for other members."""

    __slots__ = ("_scores", "_winners", "members")

    def __init__(self, members: Iterable[str]) -> None:
        """Compute the scores of `members`; duplicates are removed. Raise `ValueError` if there is none."""
        self.members = tuple(sorted({*members}))
        if not self.members:
            message = "at least one member is needed"
            raise ValueError(message)
        self._scores = [_scores_of(member) for member in self.members]
        self._winners: list[str | None] = [None] * SLOTS
        """The member of each slot that was used."""

    def choose(self, key: bytes, loads: Mapping[str, float] | None = None) -> str:
        """Return the member for `key`.

        `loads` are the current loads in any unit (such as queued items); a member that is missing in it has none. Then
        the member with the highest score is returned that may get one unit more.
        """
        slot = _slot(key)
        member = self._winners[slot]
        if member is None:
            member = self._winners[slot] = self._ranked(slot)[0]
        if loads is None:
            return member
        bound = _bound(self.members, loads)
        if loads.get(member, 0) < bound:
            return member
        return next(each for each in self._ranked(slot) if loads.get(each, 0) < bound)

    def ranking(self, key: bytes) -> list[str]:
        """Return all members, in the order in which they are chosen for `key` if those before are left out."""
        return self._ranked(_slot(key))

    def _ranked(self, slot: int) -> list[str]:
        ranked = sorted(zip([scores[slot] for scores in self._scores], self.members, strict=True), reverse=True)
        return [member for _, member in ranked]


def _slot(key: bytes) -> int:
    """Return the slot of a key. The product spreads checksums of similar short keys over all slots."""
    return (zlib.crc32(key) * 0x9E3779B97F4A7C15 >> 32) % SLOTS


def _bound(members: tuple[str, ...], loads: Mapping[str, float]) -> int:
    """Return the load that no member may exceed when one unit is added; at least one member is below it."""
    return ceil(LOAD_BOUND * (sum(loads.get(member, 0) for member in members) + 1) / len(members))


@lru_cache(maxsize=_MOST)
def _scores_of(member: str) -> array[int]:
    """Return the score of a member in each slot: the same on every machine."""
    scores = array("I", shake_128(member.encode()).digest(4 * SLOTS))
    if sys.byteorder == "big":
        scores.byteswap()
    return scores
