"""The base class of each kind of component, and the interfaces of the stages that receive batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.component.host import ComponentHealth
from otelwp_agent.errors import RetryableError
from otelwp_agent.transport.overload import Drops

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.component.context import Context
    from otelwp_agent.component.declarations import NeedsPlan
    from otelwp_agent.component.settings import ExporterConfig
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.outlets import Outlets


class Consumer(Protocol):
    """A stage that accepts batches."""

    def consume(self, batch: Batch) -> None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed. A fan-out calls it on every branch before it forwards the batch to any of them.
        """


class ReceiverSink(Protocol):
    """The entry of all pipelines that a receiver feeds, for one signal."""

    @property
    def answers_late(self) -> bool:
        """Whether a sender must wait for the result of the future that `consume` returns."""

    def admit(self) -> None:
        """Raise `Overloaded` if a batch would be refused now. It is cheap: call it before decoding a body."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed.
        """

    def consume(
        self,
        batch: Batch,
        answer: Any = None,  # noqa: ANN401 - each receiver has its own type of answer
        rejected: Callable[[int, str], Any] | None = None,
    ) -> asyncio.Future[Any] | None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it.

        Returns `None` if the sender may be answered at once. Otherwise it returns a future; its result is `answer` when
        the sender may be answered, or the `ConsumeError` to answer with. If a part of the batch is lost,
        `rejected(items, reason)` creates the answer.
        """


class ConnectorSink(ReceiverSink, Protocol):
    """The entry of some pipelines that a connector feeds, for one signal."""

    def transfer(self, batch: Batch) -> None:
        """Accept a batch, with its receipts, that the connector moves here from another of its pipelines.

        Raises `ConsumeError` with nothing changed if it is not accepted.
        """


class Component:
    """Base class of all components."""

    def __init__(self, context: Context) -> None:
        """Store the context. Files, sockets and tasks are opened in `start`."""
        self.context = context

    async def start(self) -> None:
        """Open files, sockets and tasks; on failure, close them all and raise `StartError`."""

    async def shutdown(self) -> None:
        """Forward all buffered data and close everything that `start` opened."""

    def refresh(self) -> None:
        """Read the configured files (certificates) again. Called at SIGHUP."""

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening addresses by transport, to be shown: `{"grpc": "127.0.0.1:4317"}`."""
        return {}

    def health(self) -> ComponentHealth | None:
        """Return the component's state, or `None` if it reports none."""
        return None


class Receiver(Component):
    """Creates batches. `next` is set before `start` and again at a reload: read it for each batch."""

    next: Mapping[Signal, ReceiverSink]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.drops = Drops(str(context.id), context.registry, context.log, context.clock)
        """Requests that were answered with success and dropped because of `on_overload`."""

    def require_plan(self, tenant: str, needs: NeedsPlan) -> None:
        """Raise `ForbiddenError`, and count the request, if the plan of its tenant does not enable what it needs."""
        tiers = self.context.tenant_tiers
        tiers.require(tenant, needs.tier, str(self.context.id), needs.feature, needs.instead)

    def health(self) -> ComponentHealth | None:
        """Report drops: unhealthy for a minute after the last one."""
        state = self.drops.state()
        return None if state is None else ComponentHealth(self.context.kind, str(self.context.id), *state)


class Processor(Component):
    """Accepts batches and forwards them. `next` is set before `start` and again at a reload."""

    next: Consumer
    headers: Sequence[str] = ()
    """The clients' headers (`Origin.headers`) that it reads, in lower case. A journal stores no other headers."""
    buffers: bool = False
    """Whether it keeps batches that the next stage refuses and offers them again; its `admit` refuses when it can keep
    no more. If a pipeline has no such processor, senders are refused as soon as an exporter's queue is full."""

    def consume(self, batch: Batch) -> None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""
        raise NotImplementedError

    def admit(self) -> None:
        """Raise `Overloaded` to refuse a request before it is decoded. By default nothing is refused."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed. By default, the batch is refused if `admit` or the next stage refuses it. A processor that
        keeps batches and refuses some of them overrides this method. If it refuses an `admitted` batch that another
        branch has accepted, the batch is lost for this branch.
        """
        try:
            self.admit()
        except RetryableError as refusal:
            return refusal
        return self.next.refusal(batch)

    def rewired(self) -> None:
        """Offer the refused batches again: a reload has changed `next` or a stage after it."""


class Exporter(Component):
    """Sends batches."""

    headers: Sequence[str] = ()
    """The clients' headers (`Origin.headers`) that it reads, in lower case. A journal stores no other headers."""
    max_request_bytes: int | None = None
    """Bytes of the largest body for one call of `export`; larger batches are split before the call."""
    throttled_by_tenant: bool = False
    """Whether "too many requests" from the backend is about the tenant of the batch, not about all tenants. Then the
    wait that it requests pauses the batches of this tenant only."""

    async def export(self, batch: Batch) -> int:
        """Send the batch and wait until the backend has accepted it; raise `PermanentError` or `RetryableError` if not.

        Returns the number of items that the backend rejected (OTLP's partial success): 0 if it accepted all of them.
        After `MalformedError` and `TooLargeError`, the caller splits the batch and sends the parts.
        """
        raise NotImplementedError


class Backend:
    """One of the backends of a `BackendGroup`."""

    __slots__ = ("exporter", "name", "users")

    def __init__(self, name: str, exporter: Exporter) -> None:
        """Describe the backend that `exporter` sends to; `name` is its endpoint."""
        self.name = name
        self.exporter = exporter
        self.users = 0
        """Number of senders, one for each signal, that hold or may get batches for it."""


class BackendGroup(Exporter):
    """An exporter that divides each batch among several backends, each with a queue of its own.

    The pipeline sends with the exporters of `backends` (`sending.balanced`); `export` of the group is never called.
    """

    settings: ExporterConfig
    """The queue and the retries of each backend."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.backends: dict[str, Backend] = {}
        """The current backends, by name. A change replaces the map and calls `listeners`."""
        self.listeners: list[Callable[[], None]] = []
        """Functions to call after `backends` has changed."""

    def divide(self, batch: Batch, names: Sequence[str]) -> list[tuple[str, Batch]]:
        """Return the part of a batch for each of the backends in `names`, of which there is at least one.

        Raises `MalformedError` if the batch cannot be read.
        """
        raise NotImplementedError

    async def released(self, backend: Backend) -> None:
        """Close a backend that is no longer in `backends` and has no more users."""
        raise NotImplementedError


class Connector(Component):
    """Ends a pipeline and starts others. `next` is set before `start` and again at a reload."""

    next: Mapping[Signal, ReceiverSink]
    choose: Callable[[Signal, Sequence[str]], ConnectorSink]
    """Returns the entry of some of the pipelines in `next`, by their ids. It is set together with `next`."""
    headers: Sequence[str] = ()
    """The clients' headers (`Origin.headers`) that it reads, in lower case. A journal stores no other headers."""

    def consume(self, batch: Batch) -> None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""
        raise NotImplementedError

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed. By default, the batch is refused if a pipeline of its signal refuses it.
        """
        entry = self.next.get(batch.signal)
        return None if entry is None else entry.refusal(batch)

    def admit(self, signal: Signal) -> None:
        """Raise `Overloaded` to refuse a request before it is decoded: by default, if a pipeline would refuse it."""
        entry = self.next.get(signal)
        if entry is not None:
            entry.admit()

    def fill(self, signal: Signal, fills: Mapping[str, float]) -> float:  # noqa: ARG002 - for connectors that choose
        """Return the used share (0 to 1) of the queues behind it, of those in `fills`, by pipeline: the fullest one."""
        return max(fills.values(), default=0.0)

    def connect(self, outlets: Mapping[Signal, Mapping[str, Outlets]]) -> None:
        """Use the exporters behind each pipeline in `next`, by signal and pipeline: at the start and after a reload."""


class Extension(Component):
    """Runs beside the pipelines and processes no batches, such as `health_check`."""
