"""Limit the requests in progress of each key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class RequestsInProgress:
    """Counts the requests in progress by key; a key without any takes no memory."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        """Start without requests."""
        self._counts: dict[Hashable, int] = {}

    def __len__(self) -> int:
        """Return the number of keys with requests in progress."""
        return len(self._counts)

    def count(self, key: Hashable) -> int:
        """Return the requests in progress of `key`."""
        return self._counts.get(key, 0)

    def begin(self, key: Hashable, limit: int) -> bool:
        """Count a request and return True if fewer than `limit` are in progress; otherwise return False."""
        count = self._counts.get(key, 0)
        if count >= limit:
            return False
        self._counts[key] = count + 1
        return True

    def end(self, key: Hashable) -> None:
        """Stop counting a request for which `begin` has returned True."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]
