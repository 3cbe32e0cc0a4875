"""The contracts between the pipeline and its components.

A component is one file: docstring with a YAML example → `Config` → the class → `FACTORY`. The kinds of components:

* A **receiver** creates batches and forwards each with `next[signal].consume(batch)`.
* A **processor** receives batches in `consume` and forwards them with `self.next.consume(batch)`.
* An **exporter** sends one batch in `export`; `sending.sender` wraps it with queue, retry, splitting and timeouts.
* A **connector** ends one pipeline and starts others: it receives batches in `consume` and forwards them to
  `self.next[signal]`.
* An **extension** does not process batches.

`consume` is a plain call, not a coroutine: it returns if it has accepted the batch and raises `ConsumeError` if it has
accepted nothing of it (docs/adr/0002). The later result is reported through the receipts of the batch.

Everything runs on one event loop, in one thread, except the health endpoint (`transport.side_loop`); `start` and
`shutdown` are coroutines. `shutdown` may be called on a component that was never started, and more than once; it
forwards all buffered data before it returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import Field

from otelwp_agent.config.blocks import Block, Queue, Retry
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.signal import ALL_SIGNALS, Signal
from otelwp_agent.transport.authentication import ClientAuthenticator, ServerAuthenticator
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.limiting import RequestLimiter
from otelwp_agent.transport.overload import Drops

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.config.blocks import ClientAuth
    from otelwp_agent.config.references import Capability, ExtensionRef
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Instrument, Registry
    from otelwp_agent.transport.gate import Gate, GatedServer


T = TypeVar("T")


class Kind(Enum):
    """A kind of component. `value` is its section in YAML; `label` is its name in messages and metric labels."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    CONNECTOR = "connectors"
    EXTENSION = "extensions"

    @property
    def label(self) -> str:
        """The name in the singular."""
        return self.value.removesuffix("s")


class Stability(Enum):
    """How much a component may change in later versions."""

    ALPHA = "alpha"
    BETA = "beta"
    STABLE = "stable"


class Tier(Enum):
    """A licence level. Each tier includes the tiers before it; `pipeline.tiers` checks components and settings."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"

    def enables(self, needed: Tier) -> bool:
        """Return whether a component or setting that needs the tier `needed` may be used on this tier."""
        tiers = [*Tier]
        return tiers.index(self) >= tiers.index(needed)


@dataclass(frozen=True, slots=True)
class NeedsTier:
    """Marks a setting that needs a higher tier than its component: `Annotated[Sites | None, NeedsTier(…)] = None`.

    A configuration is refused only if it sets the setting; its default belongs to the component's own tier.
    """

    tier: Tier


@dataclass(frozen=True, slots=True)
class KeptPercentage:
    """Marks a sampler's setting that is the percentage of items it keeps, which a tier may limit.

    Only a value in the configuration is checked, so the default must be within the limit of every tier.
    """


class Carries(Enum):
    """The bodies that a stage accepts: plain OTLP bytes only, or also compressed or encrypted bodies."""

    PLAIN = "plain"
    ENCODED = "encoded"


class Reads(Enum):
    """The projection that a component parses; with several settings, the one that reads most.

    Ordered by cost. CONTRIBUTING.md, "Which projection for which job", explains how to choose.
    """

    NOTHING = "nothing"
    """Bodies are forwarded, merged or sent as they are."""
    OPAQUE = "opaque"
    """The outline (`Opaque`): items stay bytes; they can be counted, split and dropped."""
    SHAPE = "shape"
    """The structure down to the items: every message must parse, no value is read (`Shape`, `PointShape`)."""
    RESOURCES = "resources"
    """Resources (`Resources`): items stay bytes."""
    KEYS = "keys"
    """Ids, times and status of spans (`Keys`): all other fields stay bytes."""
    ATTRIBUTES = "attributes"
    """Attributes at any level, names and severities (`Slices` and the messages below it)."""
    FULL = "full"
    """All fields, with the complete message types."""


class Effect(Enum):
    """An effect of a processor or connector on the items that pass through it.

    The contract suite (`otelwp_agent.testing`) checks the declared effects, using the example in the component's
    docstring. A component that declares no effect forwards every item unchanged: it may merge, split, delay and refuse
    batches.
    """

    EDITS = "edits"
    """Changes items, or the resources and scopes around them."""
    DROPS = "drops"
    """Settles items as sampled out or filtered instead of forwarding them."""


@dataclass(frozen=True, slots=True, order=True)
class ComponentId:
    """`type[/name]`, as written in YAML."""

    type: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ComponentId:
        """Parse `type[/name]`; raise `ValueError` with the reason if it is invalid."""
        type_, slash, name = text.strip().partition("/")
        if not type_ or (slash and not name):
            message = f"{text!r} is not a component id: write `type` or `type/name`"
            raise ValueError(message)
        return cls(type_.strip(), name.strip())

    def __str__(self) -> str:
        """Return the id as written in YAML."""
        return f"{self.type}/{self.name}" if self.name else self.type


class ComponentConfig(Block):
    """Base of every component's `Config`: unknown keys are refused, and the values cannot be changed after loading."""

    def lack(self, capability: Capability) -> str:  # noqa: ARG002 - for extensions whose settings decide
        """Return why an extension with these settings cannot be used as `capability`, "" if it can.

        Only for capabilities that the factory declares.
        """
        return ""


class ReceiverConfig(ComponentConfig):
    """Base of the `Config` of receivers whose senders wait for an answer."""

    acknowledge: Literal["accepted", "delivered"] = "accepted"
    """When to answer. `accepted`: as soon as the journal has accepted the request, or the pipelines if there is no
    journal. `delivered`: when the exporters have sent or dropped it. Then a sender gets an error if its request was
    dropped, and after 30 seconds without a result an error that asks it to retry."""
    max_items_per_request: int = Field(DEFAULT_MAX_ITEMS, gt=0)
    """Most resources, scopes and items (spans, metrics and data points, log records) in a request, counted together
    before it is decoded. A larger request is refused with status 413, which senders do not retry. The number of values
    inside the items is limited in proportion."""


class ExporterConfig(ComponentConfig):
    """Base of the `Config` of exporters: the queue before the exporter and the retries after a failure."""

    sending_queue: Queue = Queue()
    """The queue before the exporter."""
    retry_on_failure: Retry = Retry()
    """How to retry a send after a failure that may pass."""

    @property
    def attempt_timeout(self) -> float:
        """Seconds after which an attempt is cancelled; 0 if the exporter has its own limit."""
        timeout = getattr(self, "timeout", None)
        return timeout if isinstance(timeout, float) else 0.0


class Consumer(Protocol):
    """A stage that accepts batches."""

    def consume(self, batch: Batch) -> None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed. A fan-out calls it on every branch before it forwards the batch to any of them.
        """


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
        """Return the processors that implement `capability` (an abstract class), in the order of the configuration."""

    def stall(self) -> Stall | None:
        """Return the current stall of the event loop, or `None` if it has not been blocked for too long.

        This method, `ready`, `status` and `started_at` may be called from any thread; the others only from the main
        thread.
        """


@dataclass(frozen=True, slots=True)
class Stall:
    """A blocked event loop: the `seconds` so far, and the `stage` that blocks it ("" if unknown)."""

    seconds: float
    stage: str = ""

    def __str__(self) -> str:
        """Return a sentence for messages."""
        where = f", in {self.stage}" if self.stage else ""
        return f"the event loop has been blocked for {self.seconds:.1f} s{where}"


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

    def stall(self) -> Stall | None:
        """Return `None`: no event loop is watched."""
        return None


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
class Context:
    """The values that a component gets when it is built."""

    id: ComponentId
    kind: Kind
    registry: Registry
    """The registry to which the component binds its instruments."""
    log: structlog.typing.FilteringBoundLogger
    """A logger that adds the component's id to every event."""
    clock: Callable[[], float]
    """A monotonic clock in seconds."""
    host: Host
    pipeline: str = ""
    """The pipeline of a processor."""
    in_flight: InFlight = field(default_factory=InFlight)
    """The bytes of requests that are being received or decoded, over all receivers of the process."""
    ledgers: Ledgers = field(default_factory=Ledgers)
    """The accounts of the process, for components that create items of their own."""
    extensions: Mapping[ComponentId, Component] = field(default_factory=dict)
    """The extensions that the component's settings refer to."""

    def extension(self, reference: ExtensionRef, contract: type[T]) -> T:
        """Return the extension that a setting refers to, as an object of the abstract class `contract`."""
        found = self.extensions.get(ComponentId.parse(reference))
        if not isinstance(found, contract):
            message = f"{self.kind.value}/{self.id}: extension `{reference}` is not available as {contract.__name__}"
            raise StartError(message)
        return found

    def gate(self, settings: GatedServer) -> Gate | None:
        """Return what admits the requests of a server with these settings, or `None` if it admits all of them."""
        if settings.auth is None and not settings.middlewares:
            return None
        from otelwp_agent.transport.gate import Gate  # noqa: PLC0415 - only if it is configured

        authenticator = None
        if settings.auth is not None:
            authenticator = self.extension(settings.auth.authenticator, ServerAuthenticator)  # type: ignore[type-abstract]
        limiters = [self.extension(each.id, RequestLimiter) for each in settings.middlewares or ()]  # type: ignore[type-abstract]
        return Gate(authenticator, limiters, log=self.log)

    def client_authenticator(self, auth: ClientAuth | None) -> ClientAuthenticator | None:
        """Return the extension that adds credentials to the requests of a client, or `None` if there is none."""
        return None if auth is None else self.extension(auth.authenticator, ClientAuthenticator)  # type: ignore[type-abstract]


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

    def health(self) -> ComponentHealth | None:
        """Report drops: unhealthy for a minute after the last one."""
        state = self.drops.state()
        return None if state is None else ComponentHealth(self.context.kind, str(self.context.id), *state)


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

    async def export(self, batch: Batch) -> int:
        """Send the batch and wait until the backend has accepted it; raise `PermanentError` or `RetryableError` if not.

        Returns the number of items that the backend rejected (OTLP's partial success): 0 if it accepted all of them.
        After `MalformedError` and `TooLargeError`, the caller splits the batch and sends the parts.
        """
        raise NotImplementedError


class Connector(Component):
    """Ends a pipeline and starts others. `next` is set before `start` and again at a reload."""

    next: Mapping[Signal, ReceiverSink]

    def consume(self, batch: Batch) -> None:
        """Accept the whole batch, or raise `ConsumeError` and accept nothing of it."""
        raise NotImplementedError

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now for lack of capacity, else `None`.

        Nothing is changed. By default, the batch is refused if a pipeline of its signal refuses it.
        """
        entry = self.next.get(batch.signal)
        return None if entry is None else entry.refusal(batch)


class Extension(Component):
    """Runs beside the pipelines and processes no batches, such as `health_check`."""


ConfigClass = type[ComponentConfig]


@dataclass(frozen=True, slots=True)
class Factory:
    """The declaration of a component type, used by `validate`, the pipeline graph and the documentation."""

    kind: Kind
    type: str
    config: ConfigClass
    build: Callable[[Any, Context], Component]
    """Function that creates the component from its validated config, without opening files or sockets."""
    signals: frozenset[Signal] = ALL_SIGNALS
    emits: frozenset[Signal] | None = None
    """Connectors: the signals of the batches that they forward; the same as `signals` by default."""
    aliases: tuple[str, ...] = ()
    stability: Stability = Stability.BETA
    tier: Tier = Tier.FREE
    """The lowest tier that enables it."""
    counted: bool = True
    """Exporters: whether they count towards a tier's limit of exporters. Those that only show telemetry or write it to
    this host's disk do not count."""
    accepts: Carries = Carries.PLAIN
    encodes: bool = False
    """Processors: whether the batches that they forward are encoded; then only stages that accept this may follow."""
    reads: Reads = Reads.NOTHING
    """The largest projection that the component parses."""
    effects: frozenset[Effect] = frozenset()
    """Processors and connectors: their effects on items; none by default."""
    capabilities: frozenset[Capability] = frozenset()
    """Extensions: what other components may use it for; each has an abstract class to derive from."""
    instruments: tuple[Instrument, ...] = ()
