"""The section `service`: pipelines, extensions, and the agent's own telemetry."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Duration, Endpoint, Ignored, PositiveDuration

DEFAULT_METRICS_ADDRESS = "127.0.0.1:8888"

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


class MetricsTelemetry(Block):
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


class ServiceConfig(Block):
    """What runs, and how."""

    extensions: list[str] = Field(default_factory=list)
    """Ids of the extensions to start."""
    pipelines: dict[str, PipelineConfig] = Field(default_factory=dict)
    """`traces`, `metrics` and `logs`, or several of them with names: `traces/checkout`."""
    telemetry: Telemetry = Telemetry()
    """What the agent tells of itself."""
    shutdown_timeout: PositiveDuration = 30.0
    """Time for everything that is buffered to leave, after SIGTERM."""
