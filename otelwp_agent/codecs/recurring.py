"""Bounded caches for results that are needed repeatedly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MAX_ENTRIES = 8192
"""Default maximum number of entries of a cache; when it is reached, all are removed."""

MAX_SIZE = 127
"""Maximum size in bytes of data whose result `Recurring` caches."""


class Remembered(dict[Any, Any]):
    """A bounded cache of `make(key)`."""

    __slots__ = ("_bound", "_make")

    def __init__(self, make: Callable[[Any], Any], bound: int) -> None:
        """Cache the results of `make` for at most `bound` keys; when that is reached, remove all."""
        super().__init__()
        self._make = make
        self._bound = bound

    def __missing__(self, key: Any) -> Any:  # noqa: ANN401 - any key
        """Compute and cache the result for a new key."""
        value = self._make(key)
        if len(self) >= self._bound:
            self.clear()
        self[key] = value
        return value


class Seen:
    """Detects data that is repeated, so that data that occurs once does not displace useful entries of a cache."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        """Start without data."""
        self._hashes: set[int] = set()

    def again(self, data: Hashable) -> bool:
        """Return whether `data` was seen recently.

        Other data with the same hash may give a wrong answer, which does no harm.
        """
        seen = self._hashes
        number = hash(data)
        if number in seen:
            seen.discard(number)
            return True
        if len(seen) >= MAX_ENTRIES:
            seen.clear()
        seen.add(number)
        return False


class Recurring(dict[bytes, Any]):
    """A bounded cache of `make(data)` for short data that is repeated."""

    __slots__ = ("_make", "_seen")

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        """Cache the results of `make`."""
        super().__init__()
        self._make = make
        self._seen = Seen()

    def __missing__(self, data: bytes) -> Any:  # noqa: ANN401 - any result
        """Compute the result for new data; cache it if the data is short and repeated."""
        made = self._make(data)
        if len(data) <= MAX_SIZE and self._seen.again(data):
            if len(self) >= MAX_ENTRIES:
                self.clear()
            self[data] = made
        return made
