"""Settings of receivers of OTLP: the protocols that they listen with."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Ignored
from otelwp_agent.model.signal import Signal

_PATH = re.compile(r"/?[^\s?#/:][^\s?#:]*|/")


def _is_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        message = f"{value!r} is not a path: write one like `/v1/traces`, without a host, a query or spaces"
        raise ValueError(message)
    return value


UrlPath = Annotated[str, AfterValidator(_is_path)]


class OtlpHttp(blocks.HttpReceiver):
    """OTLP over HTTP/1.1."""

    traces_url_path: UrlPath = "/v1/traces"
    """Path for traces."""
    metrics_url_path: UrlPath = "/v1/metrics"
    """Path for metrics."""
    logs_url_path: UrlPath = "/v1/logs"
    """Path for logs."""
    profiles_url_path: Annotated[UrlPath, Ignored("profiles are not supported")] = "/v1development/profiles"
    """Accepted for compatibility with the Collector, without effect: profiles are not supported."""

    @property
    def paths(self) -> dict[str, Signal]:
        """The signal of each path. A missing first slash is added."""
        pairs = (
            (self.traces_url_path, Signal.TRACES),
            (self.metrics_url_path, Signal.METRICS),
            (self.logs_url_path, Signal.LOGS),
        )
        return {path if path.startswith("/") else f"/{path}": signal for path, signal in pairs}

    @model_validator(mode="after")
    def _distinct_paths(self) -> OtlpHttp:
        if len(self.paths) < len(Signal):
            message = "two signals have the same path: give each signal a different path"
            raise ValueError(message)
        return self


class OtlpProtocols(blocks.Block):
    """Protocols to listen with. A protocol with an empty value is enabled with its defaults."""

    grpc: blocks.GrpcServer | None = None
    """OTLP over gRPC, on 127.0.0.1:4317 by default."""
    http: OtlpHttp | None = None
    """OTLP over HTTP/1.1, on 127.0.0.1:4318 by default."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _at_least_one(self) -> OtlpProtocols:
        if self.grpc is None and self.http is None:
            message = "name at least one protocol: `grpc:` or `http:`"
            raise ValueError(message)
        return self
