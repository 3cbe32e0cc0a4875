"""The service as its components see it: its state, and the state of the other components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.component.declarations import Kind
    from otelwp_agent.transport.http_messages import Request, Response

    ControlHandler = Callable[[Request], Response | asyncio.Future[Response]]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """The state of one component, or of the journal, as shown by `/health/detailed`."""

    kind: Kind | None
    """`None` for a part of the service, such as the journal."""
    id: str
    healthy: bool
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The kind in the singular; "service" for a part of the service."""
        return "service" if self.kind is None else self.kind.label


@dataclass(frozen=True, slots=True)
class Stall:
    """A blocked event loop: the `seconds` so far, and the `stage` that blocks it ("" if unknown)."""

    seconds: float
    stage: str = ""

    def __str__(self) -> str:
        """Return a sentence for messages."""
        where = f", in {self.stage}" if self.stage else ""
        return f"the event loop has been blocked for {self.seconds:.1f} s{where}"


class Host(Protocol):
    """The information that the service offers to its components."""

    @property
    def ready(self) -> bool:
        """Whether every receiver listens and nothing is being drained."""

    @property
    def status(self) -> Literal["starting", "ready", "draining", "stopped"]:
        """The state of the service; `ready` is true in the state "ready" only."""

    @property
    def started_at(self) -> float:
        """Time when the service was started, in seconds since 1970. A reload does not change it."""

    def components(self) -> Sequence[ComponentHealth]:
        """Return the state of every component that reports one."""

    def providers(self, capability: type[T]) -> Sequence[T]:
        """Return the processors and exporters that implement `capability`, in the order of the configuration."""

    def control(self, path: str) -> ControlHandler | None:
        """Return the handler that answers requests for `path` on the control socket, or `None` if there is none.

        It answers also if the control socket is disabled. It looks up the running graph, so it may be kept.
        """

    def stall(self) -> Stall | None:
        """Return the current stall of the event loop, or `None` if it has not been blocked for too long.

        This method, `ready`, `status` and `started_at` may be called from any thread; the others only from the main
        thread.
        """


class NoHost:
    """A `Host` without other components, for components that are only built, replayed or tested."""

    started_at = 0.0

    def __init__(self, status: Literal["starting", "ready"] = "ready") -> None:
        """Report `status` as the state of the service."""
        self.status: Literal["starting", "ready", "draining", "stopped"] = status
        self.ready = status == "ready"

    def components(self) -> Sequence[ComponentHealth]:
        """Return an empty sequence."""
        return ()

    def providers(self, capability: type[T]) -> Sequence[T]:  # noqa: ARG002 - there are no processors
        """Return an empty sequence."""
        return ()

    def control(self, path: str) -> ControlHandler | None:  # noqa: ARG002 - there is no control socket
        """Return `None`."""
        return None

    def stall(self) -> Stall | None:
        """Return `None`: no event loop is watched."""
        return None
