"""Collect when API keys were used, to be stored in the background."""

from __future__ import annotations

from datetime import UTC, datetime

EVERY = 60.0
"""Seconds for which one use of a key is enough."""
MAX_BATCH = 5000
"""Keys that are stored at once."""


class LastUsed:
    """Times of the last use of API keys: at most one a minute for each key, only of the last minute in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self._noted: dict[str, float] = {}
        self._waiting: dict[str, float] = {}

    def note(self, key: str, now: float) -> None:
        """Note that the key with the id `key` was used at `now`, in seconds since 1970."""
        if now - self._noted.get(key, 0.0) >= EVERY:
            self._noted[key] = self._waiting[key] = now

    def take(self, now: float) -> dict[str, datetime]:
        """Return and remove up to `MAX_BATCH` uses that were not stored yet; forget older ones."""
        self._noted = {key: time for key, time in self._noted.items() if now - time < EVERY}
        keys = list(self._waiting)[:MAX_BATCH]
        return {key: datetime.fromtimestamp(self._waiting.pop(key), UTC) for key in keys}

    def put_back(self, used: dict[str, datetime]) -> None:
        """Keep uses that could not be stored, unless there are later ones."""
        for key, time in used.items():
            self._waiting.setdefault(key, time.timestamp())
