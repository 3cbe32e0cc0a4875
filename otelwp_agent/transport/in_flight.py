"""Count the bytes of requests that have not reached a pipeline yet, over all receivers of the process.

A request counts from its first body byte until its handler has returned: the bytes that have arrived, the bytes that
were decompressed, and an estimate of the objects that decoding builds. `memory_limiter` sets the limits; without one
they are `DEFAULT_SOFT` and `DEFAULT_HARD`.

Invariant: `used` is the sum of all bytes reserved and not released yet.
"""

from __future__ import annotations

DEFAULT_SOFT = 128 * 2**20
"""Bytes above which receivers stop reading, if no `memory_limiter` sets a limit."""
DEFAULT_HARD = 256 * 2**20
"""Bytes above which receivers refuse the largest and slowest requests, if no `memory_limiter` sets a limit."""


class InFlight:
    """The byte budget of one process. Use it only from the event loop's thread."""

    __slots__ = ("_limits", "hard", "soft", "used")

    def __init__(self, soft: int = DEFAULT_SOFT, hard: int = DEFAULT_HARD) -> None:
        """Start with nothing reserved; `soft` and `hard` are bytes."""
        self.soft = soft
        self.hard = hard
        self.used = 0
        self._limits: dict[object, tuple[int, int]] = {None: (soft, hard)}

    def limit(self, owner: object, soft: int, hard: int) -> None:
        """Set the limits of `owner`. If several owners have limits, the lowest apply; without any, the default."""
        self._limits[owner] = (soft, hard)
        self._apply()

    def unlimit(self, owner: object) -> None:
        """Remove the limits of `owner`; do nothing if there are none."""
        if self._limits.pop(owner, None) is not None:
            self._apply()

    def _apply(self) -> None:
        default, *owned = self._limits.values()
        self.soft, self.hard = min(owned, default=default)

    def reserve(self, size: int) -> None:
        """Add `size` bytes."""
        self.used += size

    def release(self, size: int) -> None:
        """Subtract `size` bytes."""
        self.used -= size

    @property
    def above_soft(self) -> bool:
        """Whether receivers should stop reading bodies."""
        return self.used > self.soft

    @property
    def above_hard(self) -> bool:
        """Whether receivers should refuse requests that are still arriving."""
        return self.used > self.hard
