"""Decide whether the journal accepts a request now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded

if TYPE_CHECKING:
    from otelwp_agent.journal.entry_store import EntryStore
    from otelwp_agent.journal.failure import Failure

MAX_UNWRITTEN = 16 * 2**20
"""Bytes of bodies that may wait for a slow disk before senders are refused."""


class Admission:
    """The capacity of the journal: on disk, and of bodies in memory that wait to be written."""

    def __init__(self, entry_store: EntryStore, failure: Failure, max_size: int) -> None:
        """Accept nothing before `measure`."""
        self.unwritten = 0
        """Bytes of the bodies that wait or are being written."""
        self.closed = True
        self.max_size = max_size
        self._capacity = 0
        """Bytes of bodies that may wait, given the space on disk and in memory."""
        self._entry_store = entry_store
        self._failure = failure

    def measure(self) -> None:
        """Compute the capacity again, after a write."""
        self._capacity = 0 if self.closed else min(self.max_size - self._entry_store.stored, MAX_UNWRITTEN)

    @property
    def full(self) -> bool:
        """Whether the journal has reached its largest size."""
        return self._entry_store.stored + self.unwritten >= self.max_size

    def admit(self) -> None:
        """Raise `Overloaded` if nothing can be accepted now."""
        if self.unwritten < self._capacity and not self._failure.message:
            return
        self._failure.check()
        if self.full:
            raise Overloaded(
                f"the journal is full ({self._entry_store.stored} of {self.max_size} bytes): what it holds must be "
                "delivered first",
                retry_after=5.0,
                reason="journal_full",
            )
        if self.closed:
            raise Overloaded("the agent is shutting down", reason="shutting_down")
        if self.unwritten >= MAX_UNWRITTEN:
            raise Overloaded("the disk under the journal does not keep up", retry_after=1.0, reason="journal_slow")
