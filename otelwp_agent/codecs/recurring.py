"""Bounded memories of what was made before, for what comes again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MAX_ENTRIES = 8192
"""What a memory holds, if nothing else is said; when full, everything is forgotten."""

MAX_SIZE = 127
"""The longest data that `Recurring` remembers something for, in bytes."""


class Remembered(dict[Any, Any]):
    """A bounded memory of `make(key)`."""

    __slots__ = ("_bound", "_make")

    def __init__(self, make: Callable[[Any], Any], bound: int) -> None:
        """Remember what `make` returns, for `bound` keys; when full, forget everything."""
        super().__init__()
        self._make = make
        self._bound = bound

    def __missing__(self, key: Any) -> Any:  # noqa: ANN401 - whatever the keys are
        """Make it."""
        value = self._make(key)
        if len(self) >= self._bound:
            self.clear()
        self[key] = value
        return value


class Seen:
    """Tells what comes again from what comes once, which would only push out of a memory what is useful in it."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        """Begin having seen nothing."""
        self._hashes: set[int] = set()

    def again(self, data: Hashable) -> bool:
        """Tell whether `data` was seen before, lately; seeing another with its hash does no harm."""
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
    """A bounded memory of `make(data)`, for short data that comes again."""

    __slots__ = ("_make", "_seen")

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        """Remember what `make` returns."""
        super().__init__()
        self._make = make
        self._seen = Seen()

    def __missing__(self, data: bytes) -> Any:  # noqa: ANN401 - whatever is made
        """Make it."""
        made = self._make(data)
        if len(data) <= MAX_SIZE and self._seen.again(data):
            if len(self) >= MAX_ENTRIES:
                self.clear()
            self[data] = made
        return made
