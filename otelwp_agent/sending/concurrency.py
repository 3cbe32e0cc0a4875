"""Limit the number of concurrent sends to what the backend can process.

Additive increase, multiplicative decrease, as in TCP: each round of successful sends raises the limit by one; a
failure, or latency well above that of an idle backend, halves it. Sends that were under way when it was halved carry no
new information and do not halve it again.

Latency depends on the size of what is sent, so it is compared among bodies of one size class (powers of two of bytes):
the shortest of the last one to two minutes is the floor of the class. The floor is forgotten after that: a backend that
is slow for good has a new floor, and gets its sends back.

The limit starts at its maximum, so a healthy exporter is never slowed down.

A tenant may use all but one of the sends: its backend may never answer, and the last one is for a tenant without any.
Several such tenants share by the rule of `fair_share`.
"""

from __future__ import annotations

INFLATION = 2.0
"""A send is slow if it takes this many times its floor,"""
SLACK = 0.1
"""… plus this many seconds, which a busy event loop may add."""
MEMORY = 60.0
"""Seconds after which floors start to expire."""
WEIGHT = 0.2
"""Weight of one send in the moving share of slow ones: about the last ten count."""
TOO_SLOW = 0.5
"""Share of slow sends that halves the limit."""
CLASSES = 64
"""Number of size classes, more than are used."""
_NEVER = float("inf")


class Concurrency:
    """The limit of one sender, from `least` to `most`. Times are seconds on the caller's clock."""

    __slots__ = ("_before", "_cut_at", "_exact", "_floors", "_least", "_most", "_slow", "_turn", "limit", "sending")

    def __init__(self, least: int, most: int) -> None:
        """Start with the limit `most`."""
        self.limit = most
        self.sending = 0
        """Sends under way; the dispatcher counts them."""
        self._least = least
        self._most = most
        self._exact = float(most)
        self._cut_at = -_NEVER
        self._slow = 0.0
        self._turn = -_NEVER
        self._floors = [_NEVER] * CLASSES
        """Shortest latencies by size class in the current period of `MEMORY` seconds …"""
        self._before = self._floors
        """… and in the period before."""

    def allows(self, own: int) -> bool:
        """Return whether a tenant with `own` sends under way may begin another."""
        limit = self.limit
        return (own + 1) * limit <= (limit - 1) * (limit - (self.sending - own))  # a share of (limit - 1) / limit

    def is_busy(self, tenant: str) -> bool:
        """Return whether a sender of `tenant` alone could begin no other send."""
        return self.sending >= (self.limit - 1 if tenant else self.limit)

    def succeeded(self, started: float, ended: float, size: int, *, busy: bool) -> None:
        """Record a send of `size` bytes that was answered. `busy`: as many sends were under way as the limit allows."""
        if ended > self._turn:
            self._forget(ended)
        latency = ended - started
        kind = size.bit_length()
        floors = self._floors
        if latency < floors[kind]:  # noqa: PLR1730 - `min` costs a call for each send
            floors[kind] = latency
        if latency > SLACK and latency > INFLATION * min(floors[kind], self._before[kind]) + SLACK:
            self._was_slow(started, ended, busy=busy)
            return
        if self._slow:
            self._slow = self._slow * (1 - WEIGHT) if self._slow > 0.01 else 0.0  # noqa: PLR2004 - next to nothing
        if busy and self._exact < self._most:
            self._exact = min(self._exact + 1 / self._exact, self._most)
            self.limit = int(self._exact)

    def failed(self, started: float, ended: float) -> None:
        """Halve the limit, unless the send had begun before it was halved last."""
        if started >= self._cut_at:
            self._cut_at = ended
            self._slow = 0.0
            self._exact = max(self._exact / 2, float(self._least))
            self.limit = int(self._exact)

    def _was_slow(self, started: float, ended: float, *, busy: bool) -> None:
        self._slow += WEIGHT * (1 - self._slow)
        if busy and self._slow > TOO_SLOW:
            self.failed(started, ended)

    def _forget(self, now: float) -> None:
        self._turn = now + MEMORY
        self._before = self._floors
        self._floors = [_NEVER] * CLASSES
