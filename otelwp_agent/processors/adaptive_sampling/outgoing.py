"""What has been decided to be kept and is to be handed on: in order, merged, and again when the next stage refuses."""

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
"""Seconds between offers of a batch that the next stage refused: the first, doubled up to the longest."""
_MOST_BYTES, _MOST_BATCHES = 2**20, 1024
"""How much is merged before it is handed on."""


class Outgoing:
    """Batches on their way to the next stage. While that refuses, they stay, and a timer offers them again."""

    def __init__(self, send: Callable[[Batch], None], log: structlog.typing.FilteringBoundLogger) -> None:
        """Hand on by `send`."""
        self._send = send
        self._log = log
        self._batches: deque[Batch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._retry = FIRST_RETRY
        self.size = 0
        """Bytes that wait."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._batches)

    @property
    def blocked(self) -> bool:
        """Whether the next stage has refused."""
        return self._timer is not None

    def put(self, batch: Batch) -> None:
        """Append a batch; `flush` hands it on."""
        self._batches.append(batch)
        self.size += len(batch.body)

    def flush(self) -> None:
        """Hand on everything, as far as the next stage takes it."""
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
        """Let go of everything, because the agent stops; return how many spans that drops."""
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
        """Take the first batches of one sender as one."""
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
    """Whether batches of these may be merged."""
    return one is other or (
        one.tenant == other.tenant and one.receiver == other.receiver and one.headers == other.headers
    )
