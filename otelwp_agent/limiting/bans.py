"""Ban addresses for some time after repeated failures to authenticate."""

from __future__ import annotations

import math
from collections import OrderedDict

MAX_GROWTH = 32
"""Longest ban as a multiple of the first one; each ban is twice as long as the one before."""
MAX_ADDRESSES = 65_536
"""Addresses in memory. Above that, the one that failed first is forgotten."""


class _Failures:
    """The failures of one address since `since`, and its bans."""

    __slots__ = ("count", "growth", "since", "until")

    def __init__(self) -> None:
        self.count = 0
        self.since = -math.inf
        self.growth = 1
        self.until = -math.inf


class Bans:
    """The failures and bans by address. Times are seconds of any clock, the same for all calls."""

    __slots__ = ("_addresses", "_duration", "_failures", "_max_addresses", "_window")

    def __init__(self, failures: int, window: float, duration: float, max_addresses: int = MAX_ADDRESSES) -> None:
        """Ban an address for `duration` seconds once it has failed `failures` times within `window` seconds.

        Each further ban is twice as long, up to `MAX_GROWTH` durations. An address without a failure for that long
        after a ban starts again with the first duration.
        """
        self._failures = failures
        self._window = window
        self._duration = duration
        self._max_addresses = max_addresses
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()
        """By address; the one that failed last is at the end."""

    def __len__(self) -> int:
        """Return the number of addresses in memory."""
        return len(self._addresses)

    def banned(self, address: str, now: float) -> float:
        """Return the seconds for which `address` is still banned; 0 if it is not."""
        found = self._addresses.get(address)
        return max(0.0, found.until - now) if found is not None else 0.0

    def failed(self, address: str, now: float) -> float:
        """Count a failure; return the seconds of the ban that it causes, 0 if it causes none."""
        found = self._addresses.get(address)
        if found is None:
            if len(self._addresses) >= self._max_addresses:
                self._addresses.popitem(last=False)
            found = self._addresses[address] = _Failures()
        else:
            self._addresses.move_to_end(address)
        if now < found.until:  # a request that was admitted before the ban
            return 0.0
        if now - found.since >= self._window:
            if now - found.until > self._duration * MAX_GROWTH:
                found.growth = 1
            found.since, found.count = now, 0
        found.count += 1
        if found.count < self._failures:
            return 0.0
        seconds = self._duration * found.growth
        found.growth = min(2 * found.growth, MAX_GROWTH)
        found.count, found.since = 0, -math.inf
        found.until = now + seconds
        return seconds

    def forget_idle(self, now: float) -> None:
        """Remove the addresses whose failures and bans no longer matter."""
        keep = max(self._window, self._duration * MAX_GROWTH)
        for address, found in list(self._addresses.items()):
            if now - max(found.since, found.until) <= keep:
                break  # those that follow failed later
            del self._addresses[address]
