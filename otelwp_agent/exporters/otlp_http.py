"""Send OTLP over HTTP to another collector or any other backend that accepts it. Also known as `otlphttp`.

Batches are compressed and sent to `endpoint` + `/v1/traces`, `/v1/metrics` or `/v1/logs`; the `…_endpoint` of a signal
is used unchanged. Batches above `max_request_size` are split. Failures that may pass are retried (`retry_on_failure`);
the queue of the exporter limits its memory.

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

import string
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent import __version__
from otelwp_agent.component import Context, Exporter, ExporterConfig, Factory, Kind, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.http_headers import is_header_name
from otelwp_agent.config.types import ByteSize, Endpoint, Ignored, Secret
from otelwp_agent.errors import PermanentError
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.redaction import redact_text
from otelwp_agent.transport.compression import compress
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.http_connection import ClientResponse

MAX_REQUEST_SIZE = 20 * 2**20
"""Default limit of the Collector for a body (confighttp's `max_request_body_size`), before compression."""

_TYPES = {"proto": "application/x-protobuf", "json": "application/json"}
_SUCCESS = range(200, 300)
_EXCERPT = 200
"""Number of characters of a backend's message that are logged."""


def _sendable(headers: dict[str, Secret]) -> dict[str, Secret]:
    return {name: value for name, value in headers.items() if is_header_name(name)}


def _has_unsendable(headers: Any) -> bool:  # noqa: ANN401 - as written
    return isinstance(headers, dict) and not all(is_header_name(name) for name in headers)


class Config(ExporterConfig, blocks.HttpClient):
    """Settings of the OTLP/HTTP exporter."""

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
        self._encoding = config.encoding
        self._compression = "" if config.compression == "none" else config.compression
        self._level = config.compression_params.level
        self._headers = [("Content-Type", _TYPES[config.encoding]), ("User-Agent", f"otelwp-agent/{__version__}")]
        if self._compression:
            coding = "deflate" if self._compression == "zlib" else self._compression
            self._headers.append(("Content-Encoding", coding))
        self._authenticator = context.client_authenticator(config.auth)
        self.headers = self._authenticator.reads if self._authenticator is not None else ()
        self._clients: dict[tuple[str, str, int | None, str], HttpClient] = {}
        self._targets: dict[Signal, tuple[HttpClient, str]] = {}
        for signal in Signal:
            endpoint = config.own_endpoint(signal) or config.endpoint
            if endpoint is not None:
                suffix = "" if config.own_endpoint(signal) else f"/v1/{signal.value}"
                self._targets[signal] = self._client(config, endpoint), _path(endpoint, suffix)
        self._partial_log = LogLimit(context.clock)

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
        body = compress(self._compression, self._encode(batch), self._level)
        response = await client.request("POST", path, body, self._headers, batch.origin)
        if response.status not in _SUCCESS:
            raise from_http(response.status, response.headers, response.body)
        return min(self._rejected(response), batch.items) if response.body else 0

    def _client(self, config: Config, endpoint: Endpoint) -> HttpClient:
        """Return the client for an endpoint's server, which all signals with that server share."""
        key = (endpoint.scheme, endpoint.host, endpoint.port, endpoint.unix)
        if key not in self._clients:
            name = f"{self.context.kind.value}/{self.context.id}"
            self._clients[key] = HttpClient(
                config, endpoint, name=name, log=self.context.log, authenticator=self._authenticator
            )
        return self._clients[key]

    def _encode(self, batch: Batch) -> bytes:
        if self._encoding == "proto":
            return batch.body
        from otelwp_agent.codecs import otlp_json  # noqa: PLC0415 - loads the full messages, only for JSON

        return otlp_json.encode(batch.signal, batch.body)

    def _rejected(self, response: ClientResponse) -> int:
        """Return how many items a successful answer rejects, and log its message at a limited rate."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _TYPES["proto"]:
            items, message = rejected(response.body)
        elif kind == _TYPES["json"]:
            items, message = _rejected_json(response.body)
        else:
            return 0  # not an OTLP response
        if (items or message) and (total := self._partial_log.take(max(items, 1))):
            self.context.log.warning(
                "partial success", rejected=total if items else 0, message=redact_text(message, paths=True)[:_EXCERPT]
            )
        return items


def _path(endpoint: Endpoint, suffix: str) -> str:
    """Return the path to request: the path of the URL, unchanged, with `suffix` appended."""
    if endpoint.unix:
        return suffix or "/"
    url = urlsplit(endpoint.strip())
    path = (url.path.rstrip("/") if suffix else url.path) + suffix
    query = f"?{url.query}" if url.query else ""
    return quote((path or "/") + query, safe=string.punctuation)


def _rejected_json(body: bytes) -> tuple[int, str]:
    """Return the result of `otlp_response.rejected` for a JSON response."""
    import orjson  # noqa: PLC0415 - few servers answer in JSON to protobuf

    try:
        partial = orjson.loads(body)["partialSuccess"]
        items = next((int(value) for key, value in partial.items() if key.startswith("rejected")), 0)
        return max(items, 0), str(partial.get("errorMessage", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, ""  # the status reports that the request was accepted


FACTORY = Factory(
    Kind.EXPORTER,
    "otlp_http",
    Config,
    OtlpHttpExporter,
    aliases=("otlphttp",),
    stability=Stability.BETA,
    tier=Tier.PRO,
)
