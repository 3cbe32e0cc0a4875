"""What waits for an exporter, and how much room there is.

Invariants:

* `size` and `bytes` are the sums over all entries that were put and not released: those that wait and those being sent.
* Nothing is put beyond the room, except one batch that is larger than all of it, into an empty queue.
* Parts of a batch that was split are measured anew. They may pass the limits (a part repeats its resources), and go out
  before what came later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelwp_agent.config.blocks import Queue
    from otelwp_agent.model.batch import Batch

SHARE_BYTES = 200
"""Memory that one share of a batch holds beside the body: its receipt, a pair and a place in a list (CPython 3.11)."""


class Suspicion:
    """How the hunt for the malformed request in one merged batch goes; its parts share it."""

    __slots__ = ("refused", "taken")

    def __init__(self) -> None:
        """Start with nothing known."""
        self.refused = 0
        self.taken = False


class Entry:
    """One batch in the queue, and what it counts for."""

    __slots__ = ("batch", "bytes", "released", "suspicion", "units")

    def __init__(self, batch: Batch, units: int, size: int, suspicion: Suspicion | None = None) -> None:
        """Hold `batch`, which takes `units` of the queue's room and `size` bytes of memory."""
        self.batch = batch
        self.units = units
        self.bytes = size
        self.suspicion = suspicion
        self.released = False


class SendingQueue:
    """A bounded queue that refuses instead of waiting."""

    def __init__(self, settings: Queue, owner: str) -> None:
        """Take the limits from `settings`; `owner` is named in refusals.

        A queue that is not enabled has room for what can be sent at once, and no more.
        """
        self.capacity = settings.queue_size if settings.enabled else settings.num_consumers
        self.max_bytes = settings.max_bytes
        self.size = 0
        self.bytes = 0
        self._sizer = settings.sizer if settings.enabled else "requests"
        self._owner = owner
        self._waiting: deque[Entry] = deque()
        self._parts: deque[Entry] = deque()

    def __len__(self) -> int:
        """Return how many entries wait."""
        return len(self._waiting) + len(self._parts)

    @property
    def fill(self) -> float:
        """How much of the room is taken: 0 is none, 1 is all of it."""
        return max(self.size / self.capacity, self.bytes / self.max_bytes)

    def admit(self) -> None:
        """Raise `Overloaded` if nothing more has room."""
        if self.size >= self.capacity or self.bytes >= self.max_bytes:
            raise self._full()

    def put(self, batch: Batch) -> None:
        """Append a batch, or raise `Overloaded`."""
        entry = self._entry(batch)
        too_many = self.size + entry.units > self.capacity or self.bytes + entry.bytes > self.max_bytes
        if too_many and (self.size or self.bytes):
            raise self._full()
        self._hold(entry, self._waiting)

    def take(self) -> Entry | None:
        """Return the next entry to send; it counts until it is released."""
        if self._parts:
            return self._parts.popleft()
        return self._waiting.popleft() if self._waiting else None

    def release(self, entry: Entry) -> None:
        """Give back the room of an entry that was taken."""
        entry.released = True
        self.size -= entry.units
        self.bytes -= entry.bytes

    def replace(self, entry: Entry, parts: Iterable[Batch]) -> None:
        """Release an entry and put the parts it was split into."""
        self.release(entry)
        for part in parts:
            self._hold(self._entry(part, entry.suspicion), self._parts)

    def _entry(self, batch: Batch, suspicion: Suspicion | None = None) -> Entry:
        body = len(batch.body)
        units = 1 if self._sizer == "requests" else batch.items if self._sizer == "items" else body
        return Entry(batch, units, body + SHARE_BYTES * len(batch.shares), suspicion)

    def _hold(self, entry: Entry, line: deque[Entry]) -> None:
        line.append(entry)
        self.size += entry.units
        self.bytes += entry.bytes

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the sending queue of {self._owner} is full "
            f"({self.size} of {self.capacity} {self._sizer}, {self.bytes} of {self.max_bytes} bytes)",
            reason="queue_full",
        )
