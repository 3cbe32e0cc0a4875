"""Stand-ins for what surrounds a component: its host, its clock, its context, and the stage after it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import ComponentId, Context, Kind, NoHost
from otelwp_agent.errors import RetryableError
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.component import Host
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
    """The stage after a component: keeps the batches that it is given, or refuses them.

    `errors` are raised one after the other, `error` each time. With `waiting` (a list), a sender that waits for an
    answer waits for the future that is put there.
    """

    answers_late = False

    def __init__(self) -> None:
        """Accept everything."""
        self.batches: list[Batch] = []
        self.waiting: list[tuple[asyncio.Future[Any], Any]] | None = None
        self.error: Exception | None = None
        self.errors: list[Exception] = []

    def admit(self) -> None:
        """Accept work."""

    def refusal(self, batch: Batch) -> RetryableError | None:  # noqa: ARG002 - the contract of `Consumer`
        """Return the error with which `consume` would refuse a batch for now, `None` if it would accept it."""
        error = next(iter(self.errors), self.error)
        return error if isinstance(error, RetryableError) else None

    def consume(
        self,
        batch: Batch,
        answer: Any = None,  # noqa: ANN401 - whatever the receiver answers with
        rejected: Callable[[int, str], Any] | None = None,
    ) -> asyncio.Future[Any] | None:
        """Keep the batch, or raise the error that a test has set."""
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

    @property
    def items(self) -> int:
        """The items in all batches that were kept."""
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
) -> Context:
    """Return what a component is built with; what is left out is made anew."""
    identifier = ComponentId(type_, name)
    return Context(
        id=identifier,
        kind=kind,
        registry=registry or Registry(),
        log=log or logging.get(f"{kind.value}/{identifier}"),
        clock=clock,
        host=host or NoHost(),
        pipeline=pipeline,
    )
