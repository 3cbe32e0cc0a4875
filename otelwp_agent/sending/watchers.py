"""Report the results of attempts to the connectors before an exporter, which may move a batch that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.routing.outlets import Move

if TYPE_CHECKING:
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.routing.outlets import SendWatcher


class Watchers:
    """The watchers of one sender; false if there are none."""

    __slots__ = ("_watchers",)

    def __init__(self) -> None:
        """Start without watchers."""
        self._watchers: list[SendWatcher] = []

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._watchers)

    def add(self, watcher: SendWatcher) -> None:
        """Add a watcher, unless it is there."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)

    def remove(self, watcher: SendWatcher) -> None:
        """Remove a watcher, if it is there."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def delivered(self, seconds: float) -> None:
        """Report an attempt that succeeded after `seconds`."""
        for watcher in tuple(self._watchers):
            watcher.delivered(seconds)

    def failed(self, batch: Batch, error: ConsumeError) -> Move:
        """Report a failed attempt or a final refusal; return whether a watcher has moved the batch."""
        pipeline = pipeline_of(batch)
        result = Move.NONE
        for watcher in tuple(self._watchers):
            moved = watcher.failed(batch, error, "" if result is Move.DONE else pipeline)
            if result is not Move.DONE and moved is not Move.NONE:
                result = moved
        return result


def pipeline_of(batch: Batch) -> str:
    """Return the pipeline whose ledgers have all receipts of a batch, "" if there are several or none."""
    found = ""
    for receipt, _ in batch.shares:
        ledger = receipt.ledger
        if ledger is None or (found and ledger.key[0] != found):
            return ""
        found = ledger.key[0]
    return found
