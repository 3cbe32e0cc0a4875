"""Exporters as seen by a connector that chooses between pipelines which end in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.model.batch import Batch


class Move(Enum):
    """Result of the attempt to move a batch from an exporter to another destination."""

    NONE = "none"
    """There is no other destination for it."""
    LATER = "later"
    """There is another destination, but it does not accept the batch now."""
    DONE = "done"
    """Another destination has accepted it, with its receipts."""


class SendWatcher(Protocol):
    """Gets reports of an exporter's attempts to send."""

    def delivered(self, seconds: float) -> None:
        """Record an attempt that the backend answered with success after `seconds`."""

    def failed(self, batch: Batch, error: ConsumeError, pipeline: str) -> Move:
        """Record a failed attempt, or a final refusal, of a batch from `pipeline`; move the batch if possible."""


class Outlet(Protocol):
    """An exporter behind a connector, for one signal."""

    @property
    def blocked_until(self) -> float:
        """Time before which the exporter sends nothing; infinity while one attempt tests whether its backend works."""

    @property
    def broken(self) -> bool:
        """Whether it sends nothing because attempts have failed (its circuit breaker is not closed)."""

    @property
    def backlog(self) -> int:
        """Number of batches in its queue, including those being sent."""

    def watch(self, watcher: SendWatcher) -> None:
        """Report the results of attempts to `watcher`, too."""

    def unwatch(self, watcher: SendWatcher) -> None:
        """Stop reporting to `watcher`."""

    def move(self, pipeline: str, forward: Callable[[Batch], bool]) -> None:
        """Offer the waiting batches of `pipeline` to `forward`; release those for which it returns `True`."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """The exporters behind one pipeline."""

    exporters: tuple[Outlet, ...] = ()
    movable: bool = False
    """Whether batches that wait in the queue can move to another pipeline: they are neither encoded by the pipeline nor
    divided between several exporters, and come only from the connector."""
