"""The section `service`: pipelines, extensions, and the agent's own telemetry."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from otelwp_agent.config.blocks import AllowedHosts, Block, Watchdog
from otelwp_agent.config.types import ByteSize, Duration, Endpoint, Ignored, PositiveDuration

DEFAULT_METRICS_ADDRESS = "127.0.0.1:8888"

DEAD_LETTERS = "dead-letters"
"""Name of the dead-letter file in the journal's directory."""

CONTROL_SOCKET = "control.sock"
"""Name of the control socket in the journal's directory."""

_OFF = "none"
_LONGEST_SOCKET = 107
"""Bytes of a unix socket's path on Linux (unix(7)): 108 with the zero at its end."""

_OWN_LOGS_SAMPLING = Ignored("nothing is logged per item, so nothing needs sampling")
_CALLER = Ignored("log lines name their component, not a line of code")
_STDERR = Ignored("logs go to stderr: let who starts the agent send that elsewhere", harmless=(None, ["stderr"]))
_NO_FIELDS = Ignored("log lines carry the fields that they have")
_NOT_EXPORTED = Ignored("the agent's own logs are written, not exported")
_NO_TRACES = Ignored("the agent does not trace itself")
_NO_VIEWS = Ignored("the agent's own metrics are what they are: drop them where they are scraped")
_METRIC_NAMES = Ignored("names are those of the Collector's own endpoint by default")
_PUSHED = Ignored("the agent's own metrics are not pushed: scrape `metrics.address`")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class PipelineConfig(Block):
    """One pipeline."""

    receivers: list[str] = Field(default_factory=list)
    """Where batches come from: ids of receivers or connectors."""
    processors: list[str] = Field(default_factory=list)
    """What is done to them, in this order: ids of processors."""
    exporters: list[str] = Field(default_factory=list)
    """Where they go: ids of exporters or connectors."""


class LogsSampling(Block):
    """Accepted for the Collector's sake: nothing is logged per item, so nothing needs sampling."""

    enabled: bool = True
    """Accepted for the Collector's sake."""
    tick: Duration = 10.0
    """Accepted for the Collector's sake."""
    initial: int = 10
    """Accepted for the Collector's sake."""
    thereafter: int = 100
    """Accepted for the Collector's sake."""


class LogsTelemetry(Block):
    """The agent's own logs."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"],
        BeforeValidator(
            _lower, json_schema_input_type=Literal["debug", "info", "warn", "error", "DEBUG", "INFO", "WARN", "ERROR"]
        ),
    ] = "info"
    """The least important lines that are written."""
    encoding: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = "console"
    """Lines for a person, or for a machine."""
    output_paths: Annotated[list[str], _STDERR] = Field(default_factory=lambda: ["stderr"])
    """Accepted for the Collector's sake: logs go to stderr."""
    initial_fields: Annotated[dict[str, Any], _NO_FIELDS] = Field(default_factory=dict)
    """Accepted for the Collector's sake."""
    development: Annotated[bool, _CALLER] = False
    """Accepted for the Collector's sake."""
    disable_caller: Annotated[bool, _CALLER] = False
    """Accepted for the Collector's sake: log lines name their component, not a line of code."""
    disable_stacktrace: Annotated[bool, _CALLER] = False
    """Accepted for the Collector's sake."""
    disable_zap_resource: Annotated[bool, _CALLER] = False
    """Accepted for the Collector's sake."""
    error_output_paths: Annotated[list[str], _STDERR] = Field(default_factory=lambda: ["stderr"])
    """Accepted for the Collector's sake: logs go to stderr."""
    sampling: Annotated[LogsSampling | None, _OWN_LOGS_SAMPLING] = None
    """Accepted for the Collector's sake: nothing is logged per item."""
    processors: Annotated[list[Any], _NOT_EXPORTED] = Field(default_factory=list)
    """Accepted for the Collector's sake: the agent's own logs are written, not exported."""


class Prometheus(Block):
    """An endpoint to scrape, in the Collector's newer words."""

    host: str = "127.0.0.1"
    """Host to listen on."""
    port: int = Field(8888, ge=0, le=65535)
    """Port to listen on."""
    without_scope_info: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for the Collector's sake."""
    without_units: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for the Collector's sake."""
    without_type_suffix: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for the Collector's sake."""
    with_resource_constant_labels: Annotated[dict[str, Any] | None, _METRIC_NAMES] = None
    """Accepted for the Collector's sake."""

    @property
    def address(self) -> str:
        """`host:port`."""
        host = self.host.strip("[]")
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class PullExporter(Block):
    """What a pull reader offers."""

    prometheus: Prometheus
    """An endpoint to scrape."""


class PullReader(Block):
    """A reader that is asked."""

    exporter: PullExporter
    """What it offers."""


class MetricReader(Block):
    """How the agent's own metrics are read, in the Collector's newer words."""

    pull: PullReader | None = None
    """The endpoint to scrape."""
    periodic: Annotated[Any, _PUSHED] = None
    """Accepted for the Collector's sake: the agent's own metrics are not pushed."""

    @model_validator(mode="after")
    def _is_one(self) -> MetricReader:
        if (self.pull is None) == (self.periodic is None):
            message = "a reader is `pull` or `periodic`: give one of them"
            raise ValueError(message)
        return self


def _off_is_none(value: object) -> object:
    if value is None:
        return DEFAULT_METRICS_ADDRESS
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


class MetricsTelemetry(AllowedHosts):
    """The agent's own metrics, as Prometheus text."""

    level: Annotated[Literal["none", "basic", "normal", "detailed"], BeforeValidator(_lower)] = "normal"
    """`none` turns them off; the other levels of the Collector's are all the same here: everything."""
    address: Annotated[
        Endpoint | None, BeforeValidator(_off_is_none), PlainSerializer(lambda address: str(address or "none"), str)
    ] = Endpoint(DEFAULT_METRICS_ADDRESS)
    """`host:port` where `/metrics` is served; `none` turns it off."""
    readers: list[MetricReader] | None = None
    """The Collector's newer way to say the same: `pull.exporter.prometheus` with `host` and `port`."""
    views: Annotated[list[Any], _NO_VIEWS] = Field(default_factory=list)
    """Accepted for the Collector's sake: drop metrics where they are scraped."""

    @model_validator(mode="after")
    def _one_address(self) -> MetricsTelemetry:
        """Make `address` the one truth: where to serve, or `None` for not at all."""
        if self.level == "none":
            self.__dict__["address"] = None
        elif self.readers is not None:
            self._reader_is_address(self.readers)
        return self

    def _reader_is_address(self, readers: list[MetricReader]) -> None:
        pulls = [reader.pull.exporter.prometheus for reader in readers if reader.pull]
        message = ""
        if not readers:
            message = "readers: the list is empty: remove it, or turn metrics off with `level: none`"
        elif len(pulls) > 1:
            message = "readers: metrics are served at one address: keep one `pull` reader"
        elif pulls and "address" in self.model_fields_set and self.address != pulls[0].address:
            message = "address is the older way to say what `readers` says: keep one of them"
        if message:
            raise ValueError(message)
        if pulls:
            self.__dict__["address"] = Endpoint(pulls[0].address)


class Telemetry(Block):
    """What the agent tells of itself."""

    logs: LogsTelemetry = LogsTelemetry()
    """Its logs."""
    metrics: MetricsTelemetry = MetricsTelemetry()
    """Its metrics."""
    traces: Annotated[dict[str, Any], _NO_TRACES] = Field(default_factory=dict)
    """Accepted for the Collector's sake: the agent does not trace itself."""
    resource: dict[str, Any] = Field(default_factory=dict)
    """Attributes that describe this agent."""


def _at_least(least: int, text: str) -> AfterValidator:
    def check(size: int) -> int:
        if size < least:
            message = f"{size} bytes are too few: give at least {text}"
            raise ValueError(message)
        return size

    return AfterValidator(check)


class JournalConfig(Block):
    """What is acknowledged stands on disk until its outcome is known, and comes back after a crash."""

    directory: str = Field(min_length=1)
    """Where it stands: a directory of this agent's own, which is made if it is missing."""
    max_size: Annotated[ByteSize, _at_least(2**20, "1MiB")] = 2**30
    """Room on disk. Once it is full, senders are refused until something has been delivered."""
    sync: Literal["group", "always", "none"] = "group"
    """When what was written is forced to disk: `group` before the answer, once for all requests that wait (survives a
    power cut); `always` once for each request; `none` leaves it to the kernel (survives a crash of the agent alone)."""


class DeadLetterConfig(Block):
    """What an exporter's other side refused for good is kept here, with the reason, for `otelwp-agent dead-letter`."""

    path: str | None = Field(None, min_length=1)
    """The file. `dead-letters` in the journal's directory if left out: without a journal, nothing is kept. `none` keeps
    nothing even with one."""
    max_size: Annotated[ByteSize, _at_least(2**16, "64KiB")] = 64 * 2**20
    """Room on disk. Once it is full, new letters are dropped and counted: the first failures tell most of a cause."""


class ServiceConfig(Block):
    """What runs, and how."""

    extensions: list[str] = Field(default_factory=list)
    """Ids of the extensions to start."""
    pipelines: dict[str, PipelineConfig] = Field(default_factory=dict)
    """`traces`, `metrics` and `logs`, or several of them with names: `traces/checkout`."""
    tier: Literal["free", "pro", "enterprise"] = "enterprise"
    """What needs a higher tier is refused (docs/topics/tiers.md). Nothing but this key sets the tier today."""
    telemetry: Telemetry = Telemetry()
    """What the agent tells of itself."""
    scheduling: Literal["batch", "normal"] = "batch"
    """`batch` does not take the CPU from who has just sent something: beside PHP, a page goes on at once (Linux;
    SCHED_BATCH). `normal` leaves the process as it was started."""
    watchdog: Watchdog = Watchdog()
    """When a blocked event loop is reported."""
    shutdown_timeout: PositiveDuration = 30.0
    """Time for everything that is buffered to leave, after SIGTERM."""
    journal: JournalConfig | None = None
    """Keep on disk what was acknowledged and is not settled yet. Off if left out."""
    dead_letter: DeadLetterConfig = DeadLetterConfig()
    """Keep what was refused for good."""
    control_socket: str | None = Field(None, min_length=1)
    """Unix socket (mode 0600) on which this agent answers `otelwp-agent audit` and `dead-letter`. `control.sock` in the
    journal's directory if left out: without a journal, none. `none` opens none even with one."""

    @property
    def dead_letter_path(self) -> str | None:
        """The absolute path of the dead-letter file, or `None` if nothing is kept."""
        return self._beside_journal(self.dead_letter.path, DEAD_LETTERS)

    @property
    def control_path(self) -> str | None:
        """The absolute path of the control socket, or `None` if there is none."""
        return self._beside_journal(self.control_socket, CONTROL_SOCKET)

    def _beside_journal(self, given: str | None, name: str) -> str | None:
        if given is not None:
            return None if given.strip().lower() == _OFF else os.path.abspath(given)  # noqa: PTH100 - not resolved
        return None if self.journal is None else os.path.abspath(os.path.join(self.journal.directory, name))  # noqa: PTH100, PTH118

    @model_validator(mode="after")
    def _socket_can_be_bound(self) -> ServiceConfig:
        path = self.control_path or ""
        length = len(os.fsencode(path))
        if length > _LONGEST_SOCKET:
            message = (
                f"control_socket: {path!r} has {length} bytes, and a unix socket's path has at most {_LONGEST_SOCKET}: "
                "give a shorter `control_socket`, or `none`"
            )
            raise ValueError(message)
        return self
