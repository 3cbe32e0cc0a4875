"""Flow control of one HTTP connection: when requests are processed, when bytes are kept, when reading pauses.

No request is processed while an answer is pending, while the client does not read, or while other connections are
served. In this time, arriving bytes are kept in a bounded backlog; when it is full, reading pauses. Kept bytes are
reserved in the process's `InFlight` and released exactly once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelwp_agent.transport.in_flight import InFlight

MAX_BACKLOG = 64 * 1024
"""Maximum number of bytes kept while no request is processed; then reading pauses. One more read may still arrive."""
REQUESTS_PER_TURN = 16
"""Pipelined requests that are answered before other connections are served."""

# State of a connection: bits of `_busy`.
HEAD = 1
"""A head has begun to arrive."""
BODY = 2
"""A body has begun to arrive."""
WAITING = 4
"""An answer is pending."""
UNWRITABLE = 8
"""The client does not read."""
YIELDED = 16
"""Other connections are served first."""
CLOSING = 32
"""No more requests are read."""
BLOCKED = WAITING | UNWRITABLE | YIELDED
"""States in which no request is processed."""

# Why reading is paused: bits of `_paused`.
BACKLOG_FULL = 1
BUDGET = 2


class Flow(asyncio.BufferedProtocol):
    """Passes the bytes that arrive on one connection to `_step`, piece by piece."""

    __slots__ = ("_backlog", "_busy", "_eof", "_in_flight", "_paused", "transport")

    transport: asyncio.Transport

    def __init__(self, in_flight: InFlight) -> None:
        """Reserve kept bytes in `in_flight`."""
        self._in_flight = in_flight
        self._busy = 0
        self._paused = 0
        self._backlog = b""
        self._eof = False

    @property
    def blocked(self) -> bool:
        """Whether arriving requests must wait."""
        return bool(self._busy & BLOCKED)

    def _step(self, data: bytes, at: int) -> int:
        """Process one request, or a part of it, from `data[at:]`; return the position after it."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close the connection after everything is written."""
        self._busy |= CLOSING
        self._take_backlog()
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Process `data`, or keep it while no request can be processed."""
        busy = self._busy
        if not busy & (BLOCKED | CLOSING):
            at = self._step(data, 0)
            if at < len(data):
                self._process(data, at)
        elif not busy & CLOSING:
            self._keep(data)

    def _process(self, data: bytes, at: int) -> None:
        """Process `data[at:]`, and keep the bytes that must wait."""
        turns = REQUESTS_PER_TURN - 1  # one request may have been processed before
        while at < len(data):
            if self._busy & CLOSING:
                return
            if not turns:
                self._busy |= YIELDED
                asyncio.get_running_loop().call_soon(self._unblock, YIELDED)
            if self._busy & BLOCKED:
                self._keep(data[at:])
                return
            turns -= 1
            at = self._step(data, at)

    def _keep(self, data: bytes) -> None:
        """Keep `data` until requests are processed again."""
        self._backlog += data
        self._in_flight.reserve(len(data))
        if len(self._backlog) > MAX_BACKLOG:
            self._pause(BACKLOG_FULL)

    def _take_backlog(self) -> bytes:
        backlog, self._backlog = self._backlog, b""
        self._in_flight.release(len(backlog))
        return backlog

    def _unblock(self, reason: int) -> None:
        """Remove a blocking reason; if no other is left, process the kept bytes."""
        self._busy &= ~reason
        if self._busy & (BLOCKED | CLOSING):
            return
        self._process(self._take_backlog(), 0)
        if not self._backlog:
            self._unpause(BACKLOG_FULL)
            if self._eof and not self._busy & (BLOCKED | CLOSING):
                self._close()

    def _pause(self, reason: int) -> None:
        if not self._paused:
            self.transport.pause_reading()
        self._paused |= reason

    def _unpause(self, reason: int) -> None:
        if self._paused:
            self._paused &= ~reason
            if not self._paused:
                self.transport.resume_reading()
