"""Forward kept traces in order and merged, and retry when the next stage refuses a batch."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.model.batch import merge
from otelwp_agent.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.model.batch import Batch, Origin

FIRST_RETRY, LONGEST_RETRY = 0.005, 0.05
"""Seconds before a refused batch is offered again: at first, and at most; doubled each time."""
_MOST_BYTES, _MOST_BATCHES = 2**20, 1024
"""Maximum size of merged batches."""


class Outgoing:
    """Batches to forward. While the next stage refuses, they wait, and a timer offers them again."""

    def __init__(self, send: Callable[[Batch], None], log: structlog.typing.FilteringBoundLogger) -> None:
        """Forward with `send`."""
        self._send = send
        self._log = log
        self._batches: deque[Batch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._retry = FIRST_RETRY
        self.size = 0
        """Bytes of waiting batches."""

    def __bool__(self) -> bool:
        """Whether any batch waits."""
        return bool(self._batches)

    @property
    def blocked(self) -> bool:
        """Whether the next stage has refused a batch."""
        return self._timer is not None

    def put(self, batch: Batch) -> None:
        """Append a batch; `flush` forwards it."""
        self._batches.append(batch)
        self.size += len(batch.body)

    def flush(self) -> None:
        """Forward all batches until the next stage refuses one."""
        if self._timer is not None:
            return
        while self._batches:
            batch = self._take()
            try:
                self._send(batch)
            except RetryableError:
                self._batches.appendleft(batch)
                self.size += len(batch.body)
                self._timer = asyncio.get_running_loop().call_later(self._retry, self._offer_again)
                self._retry = min(self._retry * 2, LONGEST_RETRY)
                return
            except ConsumeError as error:
                batch.settle(Outcome.DROPPED, error.reason)
                self._log.error("batch dropped", reason=error.reason, items=batch.items, error=str(error))
            self._retry = FIRST_RETRY

    def abandon(self) -> int:
        """Drop all batches, because the agent stops; return their number of spans."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dropped = sum([batch.abandon() for batch in self._batches])
        self._batches.clear()
        self.size = 0
        return dropped

    def _offer_again(self) -> None:
        self._timer = None
        self.flush()

    def _take(self) -> Batch:
        """Remove the first batches of one sender, and merge them."""
        batches = self._batches
        taken = [batches.popleft()]
        size = len(taken[0].body)
        origin = taken[0].origin
        while batches and size < _MOST_BYTES and len(taken) < _MOST_BATCHES and _alike(origin, batches[0].origin):
            batch = batches.popleft()
            taken.append(batch)
            size += len(batch.body)
        self.size -= size
        return merge(taken)


def _alike(one: Origin, other: Origin) -> bool:
    """Return whether batches of these origins may be merged."""
    return one is other or (
        one.tenant == other.tenant and one.receiver == other.receiver and one.headers == other.headers
    )
