"""Fakes of the parts around a component: its clock, its context, and the stage after it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import ComponentId, Context, Kind, NoHost
from otelwp_agent.errors import RetryableError
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.component import Component, Host
    from otelwp_agent.model.batch import Batch


class FakeClock:
    """A clock that a test sets: `clock.now = 5.0`, `clock() == 5.0`."""

    def __init__(self, now: float = 0.0) -> None:
        """Start at `now` seconds."""
        self.now = now

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


class Catcher:
    """A fake of the stage after a component: it stores the batches that it gets, or refuses them.

    Each call raises the next of `errors`; without any, it raises `error` if that is set. If `waiting` is a list, each
    call with an answer appends (future, answer) to it and returns the future.
    """

    answers_late = False

    def __init__(self) -> None:
        """Accept every batch until a test sets an error."""
        self.batches: list[Batch] = []
        self.waiting: list[tuple[asyncio.Future[Any], Any]] | None = None
        self.error: Exception | None = None
        self.errors: list[Exception] = []

    def admit(self) -> None:
        """Accept every request."""

    def refusal(self, batch: Batch) -> RetryableError | None:  # noqa: ARG002 - the contract of `Consumer`
        """Return the retryable error that `consume` would raise, or `None`."""
        error = next(iter(self.errors), self.error)
        return error if isinstance(error, RetryableError) else None

    def consume(
        self,
        batch: Batch,
        answer: Any = None,  # noqa: ANN401 - whatever the receiver answers with
        rejected: Callable[[int, str], Any] | None = None,
    ) -> asyncio.Future[Any] | None:
        """Store the batch, or raise the error that a test has set."""
        del rejected
        error = self.errors.pop(0) if self.errors else self.error
        if error is not None:
            raise error
        self.batches.append(batch)
        if self.waiting is None or answer is None:
            return None
        late = asyncio.get_running_loop().create_future()
        self.waiting.append((late, answer))
        return late

    def transfer(self, batch: Batch) -> None:
        """Store a batch that another pipeline of a connector gives up, or raise the error that a test has set."""
        self.consume(batch)

    @property
    def items(self) -> int:
        """Number of items in all stored batches."""
        return sum(batch.items for batch in self.batches)


def make_context(  # noqa: PLR0913 - each is a field of the context
    kind: Kind,
    type_: str,
    name: str = "",
    *,
    registry: Registry | None = None,
    log: structlog.typing.FilteringBoundLogger | None = None,
    clock: Callable[[], float] = time.monotonic,
    host: Host | None = None,
    pipeline: str = "",
    extensions: Mapping[ComponentId, Component] | None = None,
) -> Context:
    """Return the context for a component of `type_` with the id `type_/name`; omitted values are newly created."""
    identifier = ComponentId(type_, name)
    return Context(
        id=identifier,
        kind=kind,
        registry=registry or Registry(),
        log=log or logging.get(f"{kind.value}/{identifier}"),
        clock=clock,
        host=host or NoHost(),
        pipeline=pipeline,
        extensions=extensions or {},
    )
