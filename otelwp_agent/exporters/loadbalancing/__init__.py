"""Divide telemetry among several backends, so that everything with the same key reaches the same one.

With the default key, all spans of a trace reach one backend, whichever agent sends them. So tail sampling
(`adaptive_sampling`) can run on several collectors behind one layer of agents. The key chooses the backend by
rendezvous hashing: a backend that is added takes about 1/n of the keys, and no key moves between the others.

Data are sent to each backend as by the exporter `otlp_grpc`, with a queue, retries and a circuit breaker of its own. A
backend that does not answer gets no data until it is back. What is queued for it moves to the others.

The settings are those of the Collector's exporter of this name. Two settings differ: queue and retries are configured
for each backend under `protocol.otlp`; and `streamID` is not a key, because `metric` keeps streams together, too.

Example::

    exporters:
      loadbalancing:
        protocol:
          otlp:
            timeout: 3s
            tls: {insecure: true}
            sending_queue: {queue_size: 2000}
        resolver:
          static:
            hostnames: [sampler-1.example:4317, sampler-2.example:4317]
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from otelwp_agent.component import (
    Backend,
    BackendGroup,
    ComponentConfig,
    ComponentId,
    Context,
    Exporter,
    ExporterConfig,
    Factory,
    Kind,
    Reads,
    Stability,
    Tier,
)
from otelwp_agent.components import Catalog
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Endpoint, Ignored
from otelwp_agent.errors import StartError
from otelwp_agent.exporters.loadbalancing.resolvers import PORT, Resolver, with_port
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.balancing import SIGNALS, divider
from otelwp_agent.routing.rendezvous import Rendezvous
from otelwp_agent.telemetry.metrics import Gauge, Instrument, InstrumentKind
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.name_lookup import LookupFailedError, NameLookup, system_lookup
from otelwp_agent.transport.otlp_grpc_settings import OtlpGrpcSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.routing.balancing import Divider, Key
    from otelwp_agent.transport.name_lookup import Lookup

RESOLUTIONS = Instrument(
    "otelcol_loadbalancer_num_resolutions",
    "Look-ups of the backends, by result.",
    labels=("exporter", "resolver", "success"),
)
BACKENDS = Instrument(
    "otelcol_loadbalancer_num_backends",
    "Backends in use.",
    InstrumentKind.GAUGE,
    ("exporter", "resolver"),
)
UPDATES = Instrument(
    "otelcol_loadbalancer_num_backend_updates",
    "Look-ups that found other backends than before.",
    labels=("exporter", "resolver"),
)

_GROUPS = 64
"""Sets of usable backends whose hash tables are remembered, at 256 KiB each."""

_PER_BACKEND = "each backend has its own: give it under `protocol.otlp`"
_NO_ENDPOINT = Ignored("the endpoints are those of the resolver")


class BackendSettings(ExporterConfig, OtlpGrpcSettings):
    """How to send to each backend: the settings of the exporter `otlp_grpc`."""

    endpoint: Annotated[Endpoint, _NO_ENDPOINT] = Endpoint(f"localhost:{PORT}")
    """Accepted for compatibility with the Collector, without effect: the endpoints are those of the resolver."""


class BackendProtocol(Block):
    """The protocol of the backends."""

    otlp: BackendSettings = BackendSettings()
    """OTLP over gRPC."""


class Config(ComponentConfig):
    """Settings of the load-balancing exporter."""

    routing_key: Literal["traceID", "service", "resource", "metric", "attributes"] | None = None
    """Key that chooses the backend: `traceID` (traces, and logs, of which those without a trace are spread evenly);
    `service` (the attribute `service.name` of the resource); `resource` (all attributes of the resource); `metric` (the
    name of a metric); `attributes` (the values of `routing_attributes`). Default: `traceID`, for metrics `service`."""
    routing_attributes: list[str] = Field(default_factory=list)
    """With `routing_key: attributes`, for traces and logs: names of attributes. Each is read from the resource; if that
    does not have it, from the scope, and then from the span or log record. `span.name` and `span.kind` are fields of
    the span."""
    protocol: BackendProtocol = BackendProtocol()
    """How to send to each backend."""
    resolver: Resolver
    """Source of the backends."""
    sending_queue: Annotated[Any, Ignored(_PER_BACKEND)] = None
    """Accepted for compatibility with the Collector, without effect: each backend has its own queue."""
    retry_on_failure: Annotated[Any, Ignored(_PER_BACKEND)] = None
    """Accepted for compatibility with the Collector, without effect: each backend has its own retries."""
    timeout: Annotated[Any, Ignored(_PER_BACKEND)] = None
    """Accepted for compatibility with the Collector, without effect: each backend has its own timeout."""

    @field_validator("routing_key", mode="before")
    @classmethod
    def _known(cls, key: object) -> object:
        if key == "streamID":
            message = "`streamID` is not supported: use `metric`, which keeps all streams of a metric together"
            raise ValueError(message)
        return key or None

    @field_validator("routing_attributes")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        for name in names:
            if not name or names.count(name) > 1:
                message = f"{name!r} is in the list twice: remove one of them" if name else "a name is empty: remove it"
                raise ValueError(message)
        return names

    @model_validator(mode="after")
    def _attributes_agree(self) -> Self:
        if (self.routing_key == "attributes") != bool(self.routing_attributes):
            message = "`routing_key: attributes` and a list of `routing_attributes` need each other: give both or none"
            raise ValueError(message)
        return self

    def key(self, signal: Signal) -> Key:
        """Return the key for a signal."""
        return self.routing_key or ("service" if signal is Signal.METRICS else "traceID")

    def refuses(self, signal: Signal) -> str:
        """Return why batches of a signal cannot be divided, "" if they can."""
        key = self.key(signal)
        if signal in SIGNALS[key]:
            return ""
        fitting = ", ".join(f"`{each}`" for each, signals in SIGNALS.items() if signal in signals)
        return f"{signal.value} have no key `{key}`: use another exporter for them, with one of {fitting}"


class LoadBalancing(BackendGroup):
    """Divides batches among the backends that its resolver finds."""

    def __init__(self, config: Config, context: Context, lookup: Lookup = system_lookup) -> None:
        """Open nothing; `lookup` returns the addresses of a host name."""
        super().__init__(context)
        self.settings = config.protocol.otlp
        self._dividers: dict[Signal, Divider] = {
            signal: divider(config.key(signal), signal, config.routing_attributes)
            for signal in Signal
            if not config.refuses(signal)
        }
        self._groups: dict[tuple[str, ...], Rendezvous] = {}
        self._static = config.resolver.static
        self._dns = config.resolver.dns
        self._names: NameLookup | None = None
        if self._dns is not None:
            dns = self._dns
            self._names = NameLookup(dns.hostname, dns.port, timeout=dns.timeout, lookup=lookup)
        self._task: asyncio.Task[None] | None = None
        self._gauge: Gauge | None = None
        self._failing = False
        self._known: dict[str, Backend] = {}
        """The backends that are not closed, by name: current ones, and former ones that are still used."""
        self._exporter = _exporter_factory()
        authenticator = context.client_authenticator(self.settings.auth)
        self.headers = authenticator.reads if authenticator is not None else ()

    async def start(self) -> None:
        """Look up the backends; raise `StartError` if a backend cannot be sent to because of its settings."""
        registry, labels = self.context.registry, {"exporter": str(self.context.id), "resolver": self._resolver}
        self._gauge = registry.gauge(BACKENDS, self._number, **labels)
        if self._static is not None:
            self._count(success=True)
            await self._use([with_port(each) for each in self._static.hostnames])
        else:
            await self._resolve()
            self._task = spawn(self._follow(), name=f"look up the backends of {self.context.id}")

    async def shutdown(self) -> None:
        """Stop the look-ups and close the connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._gauge is not None and self._gauge.callback == self._number:  # not replaced after a reload
            self.context.registry.forget(exporter=str(self.context.id), resolver=self._resolver)
        if self._names is not None:
            await self._names.aclose()
        known, self._known, self.backends = self._known, {}, {}
        for backend in known.values():
            await backend.exporter.shutdown()

    def refresh(self) -> None:
        """Reload the certificates of all connections."""
        for backend in self._known.values():
            backend.exporter.refresh()

    def divide(self, batch: Batch, names: Sequence[str]) -> list[tuple[str, Batch]]:
        """Return the part of a batch for each of the backends in `names`."""
        if len(names) == 1:
            return [(names[0], batch)]
        key = tuple(names)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _GROUPS:
                self._groups.clear()
            group = self._groups[key] = Rendezvous(names)
        return self._dividers[batch.signal](batch, group.choose)

    async def released(self, backend: Backend) -> None:
        """Close the connection to a former backend."""
        if self._known.get(backend.name) is backend and backend.name not in self.backends:
            del self._known[backend.name]
            await backend.exporter.shutdown()

    def _number(self) -> float:
        return len(self.backends)

    @property
    def _resolver(self) -> str:
        return "static" if self._static is not None else "dns"

    async def _follow(self) -> None:
        """Look up the backends again and again."""
        assert self._dns is not None  # noqa: S101 - `start` has checked it
        while True:
            await asyncio.sleep(self._dns.interval)
            try:
                await self._resolve()
            except StartError as error:
                self.context.log.error("backend not used", error=str(error))  # noqa: TRY400 - no bug, so no traceback

    async def _resolve(self) -> None:
        assert self._names is not None  # noqa: S101 - there is a name if there is no list
        try:
            found = await self._names.resolve()
        except LookupFailedError as error:
            self._count(success=False)
            if not self._failing:
                self.context.log.warning("backends not found", error=str(error), backends=len(self.backends))
            self._failing = True
            return
        self._failing = False
        self._count(success=True)
        await self._use(found)

    async def _use(self, names: Sequence[str]) -> None:
        """Let `names` be the backends from now on."""
        if [*self.backends] == [*names]:
            return
        added = [name for name in names if name not in self.backends]
        lost = [name for name in self.backends if name not in names]
        for name in added:
            if name not in self._known:
                self._known[name] = await self._new(name)
        self.backends = {name: self._known[name] for name in names}
        self.context.registry.counter(UPDATES, exporter=str(self.context.id), resolver=self._resolver).add()
        self.context.log.info("backends changed", added=added, lost=lost, backends=len(names))
        for listener in tuple(self.listeners):
            listener()
        for name in lost:
            if not self._known[name].users:
                await self.released(self._known[name])

    async def _new(self, name: str) -> Backend:
        """Return a started backend."""
        own, context = self.context.id, self.context
        identifier = ComponentId(own.type, f"{own.name}/{name}" if own.name else name)
        of_backend = Context(
            identifier,
            context.kind,
            context.registry,
            context.log.bind(backend=name),
            context.clock,
            context.host,
            deliveries=context.deliveries,
            extensions=context.extensions,
        )
        exporter = self._exporter.build(self.settings.model_copy(update={"endpoint": Endpoint(name)}), of_backend)
        assert isinstance(exporter, Exporter)  # noqa: S101 - it is one of this package
        await exporter.start()
        return Backend(name, exporter)

    def _count(self, *, success: bool) -> None:
        name, result = str(self.context.id), str(success).lower()
        self.context.registry.counter(RESOLUTIONS, exporter=name, resolver=self._resolver, success=result).add()


def _exporter_factory() -> Factory:
    factory = Catalog().get(Kind.EXPORTER, "otlp_grpc")
    assert factory is not None  # noqa: S101 - it is built in
    return factory


FACTORY = Factory(
    Kind.EXPORTER,
    "loadbalancing",
    Config,
    LoadBalancing,
    stability=Stability.ALPHA,
    tier=Tier.PRO,
    reads=Reads.ATTRIBUTES,
    instruments=(RESOLUTIONS, BACKENDS, UPDATES),
)
