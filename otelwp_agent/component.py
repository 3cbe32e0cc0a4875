"""The contracts between the pipeline and its components.

A component is one file: docstring with a YAML example → `Config` → the class → `FACTORY`. What it does for the graph:

* A **receiver** makes batches and hands each to `next[signal].consume(batch)`.
* A **processor** gets batches by `consume` and hands on to `self.next.consume(batch)`.
* An **exporter** sends one batch in `export`; queue, retry, splitting and timeouts stand around it
  (`sending.sender`).
* A **connector** ends one pipeline and begins others: it gets batches by `consume` and hands on to `self.next[signal]`.
* An **extension** does not touch batches.

`consume` is a plain call, not a coroutine: it returns when the batch has been taken and raises `ConsumeError` when
nothing of it has (docs/adr/0002). What happens to a batch later, its receipts tell.

Everything runs on one event loop, in one thread, except the health endpoint (`transport.side_loop`); `start` and
`shutdown` are coroutines. `shutdown` works on a component that never started, works twice, and hands on what is
buffered before it returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import Field

from otelwp_agent.config.blocks import Block, Queue, Retry
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS
from otelwp_agent.model.signal import ALL_SIGNALS, Signal
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.overload import Drops

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Instrument, Registry


T = TypeVar("T")


class Kind(Enum):
    """A kind of component. `value` is its section in YAML; `label` what it is called in messages and metric labels."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    CONNECTOR = "connectors"
    EXTENSION = "extensions"

    @property
    def label(self) -> str:
        """The singular."""
        return self.value.removesuffix("s")


class Stability(Enum):
    """How much a component may still change."""

    ALPHA = "alpha"
    BETA = "beta"
    STABLE = "stable"


class Tier(Enum):
    """What is paid for. Each tier enables what those before it do; `pipeline.tiers` is the gate."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"

    def enables(self, needed: Tier) -> bool:
        """Tell whether what needs the tier `needed` may be used on this one."""
        tiers = [*Tier]
        return tiers.index(self) >= tiers.index(needed)


@dataclass(frozen=True, slots=True)
class NeedsTier:
    """Marks a setting that needs a higher tier than its component: `Annotated[Sites | None, NeedsTier(…)] = None`.

    Only who sets it is refused, so what its default does belongs to the component's own tier.
    """

    tier: Tier


@dataclass(frozen=True, slots=True)
class KeptPercentage:
    """Marks a sampler's setting that is the percentage of items it keeps: a tier may have a ceiling for it.

    Only what is written is looked at, so its default must be within every ceiling.
    """


class Carries(Enum):
    """What a stage can take: plain OTLP bytes only, or bodies that were compressed or sealed before it as well."""

    PLAIN = "plain"
    ENCODED = "encoded"


class Reads(Enum):
    """The most that a component reads of a batch, over all its settings: which projection it parses.

    In the order of what they cost. CONTRIBUTING.md, "Which projection for which job", says how to choose.
    """

    NOTHING = "nothing"
    """Bodies are forwarded, merged or sent as they are."""
    OPAQUE = "opaque"
    """The outline (`Opaque`): items stay bytes, and can be counted, split and dropped."""
    SHAPE = "shape"
    """Every message down to the item must parse, nothing is read (`Shape`, `PointShape`)."""
    RESOURCES = "resources"
    """Resources (`Resources`): items stay bytes."""
    KEYS = "keys"
    """Ids, times and status of spans (`Keys`): the rest stays bytes."""
    ATTRIBUTES = "attributes"
    """Attributes at any level, names and severities (`Slices` and the messages below it)."""
    FULL = "full"
    """Everything."""


class Effect(Enum):
    """What a processor or connector does to the items that pass through it.

    The contract suite (`otelwp_agent.testing`) proves what is declared, with the example in the component's docstring.
    A component that declares no effect forwards every item unchanged: it may merge, split, delay and refuse batches.
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
        """Read `type[/name]`; raise `ValueError` that says what is wrong."""
        type_, slash, name = text.strip().partition("/")
        if not type_ or (slash and not name):
            message = f"{text!r} is not a component id: write `type` or `type/name`"
            raise ValueError(message)
        return cls(type_.strip(), name.strip())

    def __str__(self) -> str:
        """Return it as written in YAML."""
        return f"{self.type}/{self.name}" if self.name else self.type


class ComponentConfig(Block):
    """Base of every component's `Config`: unknown keys are refused, and nothing changes after loading."""


class ReceiverConfig(ComponentConfig):
    """Base of the `Config` of receivers whose senders wait for an answer."""

    acknowledge: Literal["accepted", "delivered"] = "accepted"
    """When to answer: as soon as the request is `accepted` (by the journal if there is one, else by the pipelines), or
    when it is `delivered`, which is when the exporters know what became of it: a sender whose request was dropped is
    told, and one who has waited for 30 seconds is told to try again."""
    max_items_per_request: int = Field(DEFAULT_MAX_ITEMS, gt=0)
    """Resources, scopes and items (spans, metrics and data points, log records) that a request may hold together,
    counted before anything is built from it; more is refused with 413, which senders do not repeat. What stands inside
    of items is bounded in proportion."""


class ExporterConfig(ComponentConfig):
    """Base of the `Config` of exporters: the queue before it and the retries after a failure."""

    sending_queue: Queue = Queue()
    """The queue before the exporter."""
    retry_on_failure: Retry = Retry()
    """How a failed send is repeated if it may succeed later."""

    @property
    def attempt_timeout(self) -> float:
        """Seconds after which an attempt is cancelled; 0 if the exporter limits it itself."""
        timeout = getattr(self, "timeout", None)
        return timeout if isinstance(timeout, float) else 0.0


class Consumer(Protocol):
    """What takes batches."""

    def consume(self, batch: Batch) -> None:
        """Take the batch, or raise `ConsumeError` having taken nothing of it."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now for lack of capacity, or `None`. Changes nothing.

        A fan-out asks every branch before any of them gets the batch.
        """


class Host(Protocol):
    """What a component may ask of the service that runs it."""

    @property
    def ready(self) -> bool:
        """Whether every receiver listens and nothing is being drained."""

    @property
    def status(self) -> Literal["starting", "ready", "draining", "stopped"]:
        """Where the service is in its life; `ready` says the same in a word."""

    @property
    def started_at(self) -> float:
        """When the service was started: seconds since 1970. A reload does not change it."""

    def components(self) -> Sequence[ComponentHealth]:
        """Return the state of every component that has one."""

    def providers(self, capability: type[T]) -> Sequence[T]:
        """Return the processors that implement `capability` (an abstract class), in the order of the file."""

    def stall(self) -> Stall | None:
        """Return how long the event loop has been blocked, if that is too long.

        This method, `ready`, `status` and `started_at` may be called from any thread; the others from the main one.
        """


@dataclass(frozen=True, slots=True)
class Stall:
    """An event loop that is blocked: for how many `seconds`, and in which `stage`; "" if that is not known."""

    seconds: float
    stage: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        where = f", in {self.stage}" if self.stage else ""
        return f"the event loop has been blocked for {self.seconds:.1f} s{where}"


class NoHost:
    """A `Host` that runs no other component: for components that are only built, replayed or tested."""

    started_at = 0.0

    def __init__(self, status: Literal["starting", "ready"] = "ready") -> None:
        """Report `status` whenever a component asks."""
        self.status: Literal["starting", "ready", "draining", "stopped"] = status
        self.ready = status == "ready"

    def components(self) -> Sequence[ComponentHealth]:
        """Return no states."""
        return ()

    def providers(self, capability: type[T]) -> Sequence[T]:  # noqa: ARG002 - no processor provides anything
        """Return no processors."""
        return ()

    def stall(self) -> Stall | None:
        """Return `None`: there is no event loop to watch."""
        return None


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """The state of one component, or of the journal, as `/health/detailed` shows it."""

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
    """What a component is given when it is built."""

    id: ComponentId
    kind: Kind
    registry: Registry
    """Where instruments are bound."""
    log: structlog.typing.FilteringBoundLogger
    """A logger that already names the component."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    host: Host
    pipeline: str = ""
    """The pipeline that a processor stands in."""
    in_flight: InFlight = field(default_factory=InFlight)
    """The bytes of requests that are being received or decoded, over all receivers of the process."""


class Component:
    """What all kinds share."""

    def __init__(self, context: Context) -> None:
        """Keep the context; nothing is opened before `start`."""
        self.context = context

    async def start(self) -> None:
        """Open what is needed; raise `StartError` with nothing left open."""

    async def shutdown(self) -> None:
        """Hand on what is buffered and close what is open."""

    def refresh(self) -> None:
        """Read again the files that it was configured with (certificates). Called at SIGHUP."""

    def endpoints(self) -> Mapping[str, str]:
        """Return where it listens, by transport, for people: `{"grpc": "127.0.0.1:4317"}`."""
        return {}

    def health(self) -> ComponentHealth | None:
        """Return its state, or `None` if there is nothing to tell."""
        return None


class Receiver(Component):
    """Makes batches. `next` is set before `start`, and again at a reload: read it for each batch."""

    next: Mapping[Signal, ReceiverSink]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.drops = Drops(str(context.id), context.registry, context.log, context.clock)
        """What it answered with success and dropped, where `on_overload` says so."""

    def health(self) -> ComponentHealth | None:
        """Tell of drops: bad for a minute after the last one."""
        state = self.drops.state()
        return None if state is None else ComponentHealth(self.context.kind, str(self.context.id), *state)


class ReceiverSink(Protocol):
    """Where a receiver hands over: the beginning of every pipeline it feeds, for one signal."""

    @property
    def answers_late(self) -> bool:
        """Whether a sender may only be answered when the future that `consume` returns has its result."""

    def admit(self) -> None:
        """Raise `Overloaded` if a batch would be refused now. Cheap; call it before decoding a body."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now for lack of capacity, or `None`. Changes nothing."""

    def consume(
        self,
        batch: Batch,
        answer: Any = None,  # noqa: ANN401 - whatever the receiver answers with
        rejected: Callable[[int, str], Any] | None = None,
    ) -> asyncio.Future[Any] | None:
        """Take the batch, or raise `ConsumeError` having taken nothing of it.

        Returns `None` if the sender may be answered at once, else a future that gets `answer` when it may be, or the
        `ConsumeError` that it must be told. Where a part of the batch is lost, `rejected(items, why)` makes the answer.
        """


class Processor(Component):
    """Takes batches and hands on. `next` is set before `start`, and again at a reload."""

    next: Consumer
    headers: Sequence[str] = ()
    """The clients' headers (`Origin.headers`) that it reads, in lower case: a journal remembers no others."""
    buffers: bool = False
    """Whether it keeps what the next stage refuses and offers it again, and `admit` refuses when it can keep no more.
    If no processor of a pipeline does, senders are refused as soon as an exporter's queue is full."""

    def consume(self, batch: Batch) -> None:
        """Take the batch, or raise `ConsumeError` having taken nothing of it."""
        raise NotImplementedError

    def admit(self) -> None:
        """Raise `Overloaded` to refuse work before anything is decoded. Most processors have no opinion."""

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now for lack of capacity, or `None`. Changes nothing.

        By default it refuses what `admit` or the next stage refuses. A processor that keeps batches and refuses some of
        them overrides this; one that refuses an `admitted` batch loses it if another branch has accepted it.
        """
        try:
            self.admit()
        except RetryableError as refusal:
            return refusal
        return self.next.refusal(batch)

    def rewired(self) -> None:
        """Offer again what `next` refused: a reload has changed `next`, or what comes behind it."""


class Exporter(Component):
    """Sends batches."""

    max_request_bytes: int | None = None
    """The largest body that one `export` may be given; larger batches are split before."""

    async def export(self, batch: Batch) -> int:
        """Send the batch; raise `PermanentError` or `RetryableError`, or return when the other side has it.

        Returns how many of its items the other side rejected (OTLP's partial success): 0 when it took all of them.
        `MalformedError` and `TooLargeError` make the caller split the batch and try the parts.
        """
        raise NotImplementedError


class Connector(Component):
    """Ends a pipeline and begins others. `next` is set before `start`, and again at a reload."""

    next: Mapping[Signal, ReceiverSink]

    def consume(self, batch: Batch) -> None:
        """Take the batch, or raise `ConsumeError` having taken nothing of it."""
        raise NotImplementedError

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now for lack of capacity, or `None`. Changes nothing.

        By default it refuses what the pipelines of the batch's signal refuse.
        """
        entry = self.next.get(batch.signal)
        return None if entry is None else entry.refusal(batch)


class Extension(Component):
    """Does something beside the pipelines."""


ConfigClass = type[ComponentConfig]


@dataclass(frozen=True, slots=True)
class Factory:
    """How a component is declared: everything `validate`, the graph and the documentation need to know of it."""

    kind: Kind
    type: str
    config: ConfigClass
    build: Callable[[Any, Context], Component]
    """Make the component from its (validated) config. Opens nothing."""
    signals: frozenset[Signal] = ALL_SIGNALS
    emits: frozenset[Signal] | None = None
    """Connectors: the signals of what they hand on; the same as `signals` if left out."""
    aliases: tuple[str, ...] = ()
    stability: Stability = Stability.BETA
    tier: Tier = Tier.FREE
    """The lowest tier that enables it."""
    counted: bool = True
    """Exporters: whether it counts where a tier allows a number of them. One that only shows telemetry, or writes it to
    this host's disk, does not."""
    accepts: Carries = Carries.PLAIN
    encodes: bool = False
    """Processors: whether what it hands on is encoded, so that only stages which accept that may follow."""
    reads: Reads = Reads.NOTHING
    """The most that it reads of a batch."""
    effects: frozenset[Effect] = frozenset()
    """Processors and connectors: what they do to items; nothing if left out."""
    instruments: tuple[Instrument, ...] = ()
