"""Send OTLP over HTTP to another collector or any other backend that accepts it. Also known as `otlphttp`.

Batches are compressed and sent to `endpoint` + `/v1/traces`, `/v1/metrics` or `/v1/logs`; the `…_endpoint` of a signal
is used unchanged. Batches that are compressed or sealed already are sent as they are. Batches above `max_request_size`
are split. Failures that may pass are retried (`retry_on_failure`); the queue of the exporter limits its memory.

Example::

    exporters:
      otlp_http:
        endpoint: https://collector.example:4318
        headers:
          authorization: Bearer ${env:OTLP_TOKEN:-none}
        compression: zstd
        retry_on_failure:
          max_elapsed_time: 10m
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent import __version__
from otelwp_agent.component import Carries, Context, Exporter, ExporterConfig, Factory, Kind, Stability, Tier, Unfit
from otelwp_agent.config import blocks
from otelwp_agent.config.http_headers import is_header_name
from otelwp_agent.config.types import ByteSize, Endpoint, Ignored, Secret
from otelwp_agent.config.vendor_presets import VendorPreset, with_preset
from otelwp_agent.errors import PermanentError
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.otlp_posting import AnswerReader, BodyEncoder, request_path

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch

MAX_REQUEST_SIZE = 20 * 2**20
"""Default limit of the Collector for a body (confighttp's `max_request_body_size`), before compression."""


def _sendable(headers: dict[str, Secret]) -> dict[str, Secret]:
    return {name: value for name, value in headers.items() if is_header_name(name)}


def _has_unsendable(headers: Any) -> bool:  # noqa: ANN401 - as written
    return isinstance(headers, dict) and not all(is_header_name(name) for name in headers)


class Config(ExporterConfig, blocks.HttpClient):
    """Settings of the OTLP/HTTP exporter."""

    preset: VendorPreset | None = None
    """Settings of a vendor: `endpoint`, the header with the key, and `max_request_size`. What is given here takes
    precedence."""
    endpoint: blocks.HttpUrl | None = None
    """Base URL (`https://collector.example:4318`) or `unix:///path`."""
    traces_endpoint: blocks.HttpUrl | None = None
    """URL for traces, used unchanged; `endpoint` + `/v1/traces` if left out."""
    metrics_endpoint: blocks.HttpUrl | None = None
    """URL for metrics, used unchanged; `endpoint` + `/v1/metrics` if left out."""
    logs_endpoint: blocks.HttpUrl | None = None
    """URL for logs, used unchanged; `endpoint` + `/v1/logs` if left out."""
    profiles_endpoint: Annotated[Endpoint | None, Ignored("profiles are not supported")] = None
    """Accepted for compatibility with the Collector, without effect: profiles are not supported."""
    headers: Annotated[
        blocks.SecretHeaders,
        AfterValidator(_sendable),
        Ignored("names of headers have only letters, digits, `-` and `_`: others are not sent", when=_has_unsendable),
    ] = Field(default_factory=dict)
    """Headers added to every request. Values are secrets. Headers with a name that HTTP cannot send are left out."""
    encoding: Literal["proto", "json"] = "proto"
    """Format of requests. `proto` sends batches unchanged; `json` converts each batch."""
    max_request_size: ByteSize = Field(MAX_REQUEST_SIZE, ge=1024)
    """Largest body, in protobuf and before compression; larger batches are split. Raise it if the backend accepts
    more."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, settings: Any) -> Any:  # noqa: ANN401 - any YAML value
        return with_preset(settings)

    @model_validator(mode="after")
    def _has_endpoint(self) -> Config:
        if self.endpoint is None and not any(self.own_endpoint(signal) for signal in Signal):
            raise ValueError(
                "an endpoint is missing: give `endpoint` (like `https://collector.example:4318`), or "
                "`traces_endpoint`, `metrics_endpoint` or `logs_endpoint`"
            )
        if self.endpoint is not None and "?" in self.endpoint:
            raise ValueError(
                "`endpoint` cannot have a query, because paths are appended to it: use `traces_endpoint` …"
            )
        return self

    def unfit_for(self, bodies: Carries) -> Unfit | None:
        """Return that JSON cannot be made of encoded bodies."""
        if self.encoding == "json" and bodies > Carries.PLAIN:
            return Unfit(("encoding",), "JSON cannot be made of encoded data: set `encoding: proto`")
        return super().unfit_for(bodies)

    def own_endpoint(self, signal: Signal) -> Endpoint | None:
        """Return the `…_endpoint` of a signal, if it has one."""
        endpoints = {
            Signal.TRACES: self.traces_endpoint,
            Signal.METRICS: self.metrics_endpoint,
            Signal.LOGS: self.logs_endpoint,
        }
        return endpoints[signal]


class OtlpHttpExporter(Exporter):
    """Posts each batch to the URL of its signal. Signals that go to the same server share its connections."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        self.max_request_bytes = config.max_request_size
        convert = _to_json if config.encoding == "json" else None
        self._encoder = BodyEncoder(config.compression, config.compression_params.level, convert)
        self._user_agent = ("User-Agent", f"otelwp-agent/{__version__}")
        self._authenticator = context.client_authenticator(config.auth)
        self.headers = self._authenticator.reads if self._authenticator is not None else ()
        self._clients: dict[tuple[str, str, int | None, str], HttpClient] = {}
        self._targets: dict[Signal, tuple[HttpClient, str]] = {}
        for signal in Signal:
            endpoint = config.own_endpoint(signal) or config.endpoint
            if endpoint is not None:
                suffix = "" if config.own_endpoint(signal) else f"/v1/{signal.value}"
                self._targets[signal] = self._client(config, endpoint), request_path(endpoint, suffix)
        self._answers = AnswerReader(context.log, context.clock)

    async def start(self) -> None:
        """Read the certificates; the first export connects."""
        for client in self._clients.values():
            await client.start()

    async def shutdown(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    def refresh(self) -> None:
        """Reload the certificates."""
        for client in self._clients.values():
            client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Post the batch; return how many of its items the backend rejected."""
        target = self._targets.get(batch.signal)
        if target is None:
            signal = batch.signal.value
            raise PermanentError(
                f"no endpoint for {signal}: give `endpoint` or `{signal}_endpoint`", reason="no_endpoint"
            )
        client, path = target
        body, headers = self._encoder.encode(batch)
        response = await client.request("POST", path, body, [*headers, self._user_agent], batch.origin)
        return self._answers.read(batch, response)

    def _client(self, config: Config, endpoint: Endpoint) -> HttpClient:
        """Return the client for an endpoint's server, which all signals with that server share."""
        key = (endpoint.scheme, endpoint.host, endpoint.port, endpoint.unix)
        if key not in self._clients:
            name = f"{self.context.kind.value}/{self.context.id}"
            self._clients[key] = HttpClient(
                config, endpoint, name=name, log=self.context.log, authenticator=self._authenticator
            )
        return self._clients[key]


def _to_json(batch: Batch) -> bytes:
    from otelwp_agent.codecs import otlp_json  # noqa: PLC0415 - loads the full messages, only for JSON

    return otlp_json.encode(batch.signal, batch.body)


FACTORY = Factory(
    Kind.EXPORTER,
    "otlp_http",
    Config,
    OtlpHttpExporter,
    aliases=("otlphttp",),
    stability=Stability.BETA,
    tier=Tier.PRO,
    accepts=Carries.ENCODED,
)
