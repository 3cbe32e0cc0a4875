"""State of the journal after a failed write: the reason, and when to try again."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import Overloaded

if TYPE_CHECKING:
    import structlog

    from otelwp_agent.journal.reserve import Reserve

RETRY_INTERVAL = 1.0
"""Seconds after a failed write in which senders are refused."""


class Failure:
    """The state after a failed write, until a write succeeds."""

    def __init__(self, reserve: Reserve, log: structlog.typing.FilteringBoundLogger) -> None:
        """Start without a failure; `reserve` is released for the write that follows a full disk."""
        self.message = ""
        """Why the last write failed; "" if it did not."""
        self.refuse_until = 0.0
        """On the monotonic clock."""
        self._reserve = reserve
        self._log = log
        self._disk_full = False

    def set(self, error: OSError) -> Overloaded:
        """Record a failed write; return the error for the senders that wait for it."""
        self._disk_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        if self._disk_full:
            self._reserve.give_up()  # its blocks are for the next write, which records what is released
        message = error.strerror or str(error)
        if not self.message:
            self._log.error(
                "the journal cannot be written; senders are refused",
                error=message,
                advice=f"free space or repair the disk; writing is tried again every {RETRY_INTERVAL:g} s",
            )
        self.message = message
        self.refuse_until = time.monotonic() + RETRY_INTERVAL
        return self.refusal()

    def clear(self) -> None:
        """Record a write that succeeded. On a full disk that is not enough: the reserve must be there again."""
        if self.message and self._has_room():
            self._log.info("the journal can be written again")
            self.message = ""

    def check(self) -> None:
        """Raise `Overloaded` unless there is no failure or it is time to try again."""
        if self.message and (time.monotonic() < self.refuse_until or not self._has_room()):
            raise self.refusal()

    def refusal(self) -> Overloaded:
        """Return the error for a sender."""
        return Overloaded(
            f"the journal cannot be written: {self.message}", retry_after=RETRY_INTERVAL, reason="journal_unwritable"
        )

    def _has_room(self) -> bool:
        """Return whether to try again: on a full disk, once there is space for more than the releases."""
        if self._disk_full:
            self._reserve.hold()
            self._disk_full = not self._reserve.held
            self.refuse_until = time.monotonic() + RETRY_INTERVAL
        return not self._disk_full
