"""Settings of the section `service`: pipelines, extensions, and the agent's own telemetry."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from otelwp_agent.config.blocks import AllowedHosts, Block, Watchdog
from otelwp_agent.config.license import LICENSE_STATE, LicenseConfig
from otelwp_agent.config.storage_encryption import StorageEncryption  # noqa: TC001 - a field's annotation
from otelwp_agent.config.types import ByteSize, Duration, Endpoint, Ignored, PositiveDuration
from otelwp_agent.fair_share import DEFAULT_SHARE
from otelwp_agent.tier import Tier

DEFAULT_METRICS_ADDRESS = "127.0.0.1:8888"

DEAD_LETTERS = "dead-letters"
"""Name of the dead-letter file in the journal's directory."""

CONTROL_SOCKET = "control.sock"
"""Name of the control socket in the journal's directory."""

_OFF = "none"
_LONGEST_SOCKET = 107
"""Longest path of a unix socket on Linux, in bytes (unix(7)): 108 with the terminating zero."""

_OWN_LOGS_SAMPLING = Ignored("nothing is logged per item, so nothing needs sampling")
_CALLER = Ignored("log lines name their component, not a line of code")
_LOGGER_ERRORS = Ignored("a line that cannot be written is lost without an error", harmless=(None, ["stderr"]))
_NOT_EXPORTED = Ignored("the agent's own logs are written, not exported")
_NO_TRACES = Ignored("the agent does not trace itself")
_NO_VIEWS = Ignored("the agent's own metrics cannot be changed: drop metrics in the scraper")
_METRIC_NAMES = Ignored("metric names are the default names of the Collector")
_PUSHED = Ignored("the agent's own metrics are not pushed: scrape `metrics.address`")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class PipelineConfig(Block):
    """Settings of one pipeline."""

    receivers: list[str] = Field(default_factory=list)
    """Ids of the receivers or connectors that batches come from."""
    processors: list[str] = Field(default_factory=list)
    """Ids of the processors that batches pass, in this order."""
    exporters: list[str] = Field(default_factory=list)
    """Ids of the exporters or connectors that batches are sent to."""


class LogsSampling(Block):
    """Accepted for compatibility with the Collector, without effect: nothing is logged per item."""

    enabled: bool = True
    """Accepted for compatibility with the Collector, without effect."""
    tick: Duration = 10.0
    """Accepted for compatibility with the Collector, without effect."""
    initial: int = 10
    """Accepted for compatibility with the Collector, without effect."""
    thereafter: int = 100
    """Accepted for compatibility with the Collector, without effect."""


class LogsTelemetry(Block):
    """Settings of the agent's own logs."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"],
        BeforeValidator(
            _lower, json_schema_input_type=Literal["debug", "info", "warn", "error", "DEBUG", "INFO", "WARN", "ERROR"]
        ),
    ] = "info"
    """Lowest level that is written."""
    encoding: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = "console"
    """`console` for people, `json` for programs."""
    output_paths: list[str] = Field(default_factory=lambda: ["stderr"])
    """Outputs of log lines: `stderr`, `stdout` or files, to which lines are appended. Each line is written to all of
    them. An empty list means `stderr`. A file that cannot be opened prevents the start."""
    initial_fields: dict[str, Any] = Field(default_factory=dict)
    """Fields that are added to every log line. A line's own field of the same name takes precedence."""
    development: Annotated[bool, _CALLER] = False
    """Accepted for compatibility with the Collector, without effect."""
    disable_caller: Annotated[bool, _CALLER] = False
    """Accepted for compatibility with the Collector, without effect: log lines name their component."""
    disable_stacktrace: Annotated[bool, _CALLER] = False
    """Accepted for compatibility with the Collector, without effect."""
    disable_zap_resource: Annotated[bool, _CALLER] = False
    """Accepted for compatibility with the Collector, without effect."""
    error_output_paths: Annotated[list[str], _LOGGER_ERRORS] = Field(default_factory=lambda: ["stderr"])
    """Accepted for compatibility with the Collector, without effect: a line that cannot be written is lost."""
    sampling: Annotated[LogsSampling | None, _OWN_LOGS_SAMPLING] = None
    """Accepted for compatibility with the Collector, without effect: nothing is logged per item."""
    processors: Annotated[list[Any], _NOT_EXPORTED] = Field(default_factory=list)
    """Accepted for compatibility with the Collector, without effect: the agent's own logs are written, not exported."""


class Prometheus(Block):
    """An endpoint for Prometheus to scrape, in the Collector's newer syntax."""

    host: str = "127.0.0.1"
    """Host to listen on."""
    port: int = Field(8888, ge=0, le=65535)
    """Port to listen on."""
    without_scope_info: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for compatibility with the Collector, without effect."""
    without_units: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for compatibility with the Collector, without effect."""
    without_type_suffix: Annotated[bool, _METRIC_NAMES] = True
    """Accepted for compatibility with the Collector, without effect."""
    with_resource_constant_labels: Annotated[dict[str, Any] | None, _METRIC_NAMES] = None
    """Accepted for compatibility with the Collector, without effect."""

    @property
    def address(self) -> str:
        """`host:port`."""
        host = self.host.strip("[]")
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class PullExporter(Block):
    """Exporter of a pull reader."""

    prometheus: Prometheus
    """The endpoint to scrape."""


class PullReader(Block):
    """A reader that serves metrics on request."""

    exporter: PullExporter
    """How it serves them."""


class MetricReader(Block):
    """How the agent's own metrics are published, in the Collector's newer syntax."""

    pull: PullReader | None = None
    """An endpoint to scrape."""
    periodic: Annotated[Any, _PUSHED] = None
    """Accepted for compatibility with the Collector, without effect: the agent's own metrics are not pushed."""

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
    """Settings of the agent's own metrics, which are served as Prometheus text."""

    level: Annotated[Literal["none", "basic", "normal", "detailed"], BeforeValidator(_lower)] = "normal"
    """`none` turns metrics off; the Collector's other levels are equivalent here and publish all metrics."""
    address: Annotated[
        Endpoint | None, BeforeValidator(_off_is_none), PlainSerializer(lambda address: str(address or "none"), str)
    ] = Endpoint(DEFAULT_METRICS_ADDRESS)
    """`host:port` on which `/metrics` is served; `none` turns it off."""
    readers: list[MetricReader] | None = None
    """The Collector's newer syntax for `address`: `pull.exporter.prometheus` with `host` and `port`."""
    views: Annotated[list[Any], _NO_VIEWS] = Field(default_factory=list)
    """Accepted for compatibility with the Collector, without effect: drop metrics where they are scraped."""

    @model_validator(mode="after")
    def _one_address(self) -> MetricsTelemetry:
        """Set `address` to the one address to serve, or to `None` if metrics are off."""
        if self.level == "none":
            self.__dict__["address"] = None
        elif self.readers is not None:
            self._reader_is_address(self.readers)
        return self

    def _reader_is_address(self, readers: list[MetricReader]) -> None:
        pulls = [reader.pull.exporter.prometheus for reader in readers if reader.pull]
        message = ""
        if not readers:
            message = "readers: the list is empty: remove the key, or turn metrics off with `level: none`"
        elif len(pulls) > 1:
            message = "readers: metrics are served at one address only: keep one `pull` reader"
        elif pulls and "address" in self.model_fields_set and self.address != pulls[0].address:
            message = "address and `readers` give different addresses: remove `address`, the older syntax"
        if message:
            raise ValueError(message)
        if pulls:
            self.__dict__["address"] = Endpoint(pulls[0].address)


class Telemetry(Block):
    """Settings of the agent's own telemetry."""

    logs: LogsTelemetry = LogsTelemetry()
    """The agent's own logs."""
    metrics: MetricsTelemetry = MetricsTelemetry()
    """The agent's own metrics."""
    traces: Annotated[dict[str, Any], _NO_TRACES] = Field(default_factory=dict)
    """Accepted for compatibility with the Collector, without effect: the agent does not trace itself."""
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
    """Settings of the journal, which keeps acknowledged requests on disk until all their items are settled.

    After a crash, the requests that are not settled are replayed.
    """

    directory: str = Field(min_length=1)
    """Directory of the journal, for this agent only; it is created if it does not exist."""
    max_size: Annotated[ByteSize, _at_least(2**20, "1MiB")] = 2**30
    """Largest size on disk. While the journal is full, requests are refused until others have been delivered."""
    max_tenant_share: float = Field(DEFAULT_SHARE, gt=0, le=1)
    """Maximum share of the space for one tenant, of what the other tenants leave free. 1 for no limit. Data without a
    tenant may use all of it."""
    sync: Literal["group", "always", "none"] = "group"
    """When written data is forced to disk: `group` before the answer, once for all requests that wait (survives a power
    failure); `always` once for each request; `none` leaves it to the kernel (survives only a crash of the agent)."""
    encryption: StorageEncryption | None = None
    """Encrypt what is written. Off if left out. Segments from before are read as they are."""

    @model_validator(mode="after")
    def _can_be_read_again(self) -> JournalConfig:
        if self.encryption is not None:
            self.encryption.check_readable("the agent must read the journal after a crash")
            self.encryption.check_apart(self.directory)
        return self


class DeadLetterConfig(Block):
    """Settings of the dead-letter file: requests that a backend refused permanently, for `otelwp-agent dead-letter`."""

    path: str | None = Field(None, min_length=1)
    """Path of the file. Default: `dead-letters` in the journal's directory; without a journal, no dead letters are
    kept. `none` keeps none even with a journal."""
    max_size: Annotated[ByteSize, _at_least(2**16, "64KiB")] = 64 * 2**20
    """Largest size on disk. When the file is full, new letters are dropped and counted; the old ones are kept, because
    the first failures usually show the cause."""
    max_tenant_share: float = Field(DEFAULT_SHARE, gt=0, le=1)
    """Maximum share of the file for one tenant, of what the other tenants leave free. 1 for no limit. Letters without a
    tenant may use all of it."""
    encryption: StorageEncryption | None = None
    """Encrypt the letters. Default: as `journal.encryption`. Only `recipients`: the agent writes letters that it cannot
    read, so it cannot resend them."""


class ServiceConfig(Block):
    """Settings of the section `service`: what to run, and how."""

    extensions: list[str] = Field(default_factory=list)
    """Ids of the extensions to start."""
    pipelines: dict[str, PipelineConfig] = Field(default_factory=dict)
    """Pipelines by id: `traces`, `metrics` or `logs`, or several of a signal with names, such as `traces/checkout`."""
    tier: Literal["free", "pro", "enterprise"] | None = None
    """Tier of an agent without a licence; components and settings of a higher tier are refused
    (docs/topics/tiers.md). If neither this nor `license` is set, every stage is enabled for evaluation."""
    license: LicenseConfig | None = None
    """The licence of this agent, which decides the tier (docs/topics/licences.md)."""
    telemetry: Telemetry = Telemetry()
    """The agent's own logs and metrics."""
    scheduling: Literal["batch", "normal"] = "batch"
    """`batch` (SCHED_BATCH on Linux) does not preempt the process that sent the data, so that on a host with PHP a page
    request continues at once. `normal` leaves the scheduling policy of the process unchanged."""
    watchdog: Watchdog = Watchdog()
    """When a blocked event loop is reported."""
    shutdown_timeout: PositiveDuration = 30.0
    """Time to deliver all buffered data after SIGTERM."""
    journal: JournalConfig | None = None
    """Keep acknowledged requests on disk until they are settled. Off if left out."""
    dead_letter: DeadLetterConfig = DeadLetterConfig()
    """Keep requests that a backend refused permanently."""
    control_socket: str | None = Field(None, min_length=1)
    """Unix socket (mode 0600) on which this agent answers `otelwp-agent audit` and `dead-letter`. Default:
    `control.sock` in the journal's directory; without a journal, there is no socket. `none` opens none even with a
    journal."""

    @property
    def dead_letter_path(self) -> str | None:
        """Absolute path of the dead-letter file, or `None` if no dead letters are kept."""
        return self._beside_journal(self.dead_letter.path, DEAD_LETTERS)

    @property
    def dead_letter_encryption(self) -> StorageEncryption | None:
        """How dead letters are encrypted; `None` if they are not."""
        if self.dead_letter.encryption is not None or self.journal is None:
            return self.dead_letter.encryption
        return self.journal.encryption

    @property
    def stated_tier(self) -> Tier | None:
        """The tier that the configuration states, or `None` if it states none."""
        return None if self.tier is None else Tier(self.tier)

    @property
    def license_state_path(self) -> str | None:
        """Absolute path of the licence's state file, or `None` if there is none."""
        return None if self.license is None else self._beside_journal(self.license.state_file, LICENSE_STATE)

    @property
    def control_path(self) -> str | None:
        """Absolute path of the control socket, or `None` if there is none."""
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
                f"control_socket: {path!r} has {length} bytes, but the path of a unix socket has at most "
                f"{_LONGEST_SOCKET}: "
                "give a shorter `control_socket`, or `none`"
            )
            raise ValueError(message)
        return self
