"""Send traces to Zipkin, or to another backend that accepts its v2 format, as JSON or protobuf.

Spans are converted directly from OTLP bytes. docs/topics/zipkin.md describes the mapping, and what the format cannot
represent. Failures that may pass are retried (`retry_on_failure`); the queue of the exporter limits its memory.

Example::

    exporters:
      zipkin:
        endpoint: http://127.0.0.1:9411/api/v2/spans
        format: json
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field

from otelwp_agent import __version__
from otelwp_agent.component import (
    Context,
    Exporter,
    ExporterConfig,
    Factory,
    Kind,
    Reads,
    Stability,
    Tier,
)
from otelwp_agent.config import blocks
from otelwp_agent.config.types import ByteSize, Endpoint, PositiveDuration  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import PermanentError, TooLargeError
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.compression import compress
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http

if TYPE_CHECKING:
    from otelwp_agent.codecs.zipkin.encoding import Encoder
    from otelwp_agent.model.batch import Batch

MAX_REQUEST_SIZE = 10 * 2**20
"""Body limit of Zipkin's server (tested with 3.4.4), which is the default of its HTTP server."""

DEFAULT_SERVICE_NAME = "unknown_service"
"""Name of services without one, from OpenTelemetry's specification ("Resource SDK", SDK-provided attributes)."""

PATH = "/api/v2/spans"
"""Path on which Zipkin accepts spans."""

_TYPES = {"proto": "application/x-protobuf", "json": "application/json"}
_SUCCESS = range(200, 300)
_TOO_LARGE = b"413 "
"""Beginning of the body with which Zipkin's server answers a request that is too large; its status is 500."""


class Config(ExporterConfig, blocks.HttpClient):
    """Settings of the Zipkin exporter."""

    endpoint: blocks.HttpUrl
    """URL to post to, like `http://127.0.0.1:9411/api/v2/spans`, or `unix:///path` of a socket. If the URL has no path,
    `/api/v2/spans` is used."""
    format: Literal["json", "proto"] = "json"
    """Format of requests."""
    default_service_name: str = Field(DEFAULT_SERVICE_NAME, min_length=1)
    """Name of a service that has none."""
    compression: blocks.Compression = "none"
    """Compression of bodies: gzip, the only one that Zipkin's server supports, zstd, deflate, zlib or none."""
    timeout: PositiveDuration = 5.0
    """Time for one request, from connecting to the last byte of the response."""
    max_request_size: ByteSize = Field(MAX_REQUEST_SIZE, ge=1024)
    """Largest body before compression; larger batches are split."""


class ZipkinExporter(Exporter):
    """Posts each batch as one list of spans."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        self.max_request_bytes = config.max_request_size
        self._max_size = config.max_request_size
        self._encoder = _encoder(config)
        self._compression = "" if config.compression == "none" else config.compression
        self._level = config.compression_params.level
        self._headers = [("Content-Type", _TYPES[config.format]), ("User-Agent", f"otelwp-agent/{__version__}")]
        if self._compression:
            coding = "deflate" if self._compression == "zlib" else self._compression
            self._headers.append(("Content-Encoding", coding))
        endpoint = config.endpoint
        self._path = _path(endpoint)
        name = f"{context.kind.value}/{context.id}"
        authenticator = context.client_authenticator(config.auth)
        self.headers = authenticator.reads if authenticator is not None else ()
        self._client = HttpClient(config, endpoint, name=name, log=context.log, authenticator=authenticator)
        self._left_out = LogLimit(context.clock)

    async def start(self) -> None:
        """Read the certificates; the first export connects."""
        await self._client.start()

    async def shutdown(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def refresh(self) -> None:
        """Reload the certificates."""
        self._client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Post the batch; return how many of its spans were left out because Zipkin cannot represent them."""
        encoded = self._encoder.encode(batch.body)
        if encoded.left_out and (spans := self._left_out.take(encoded.left_out)):
            self.context.log.error("spans skipped", spans=spans, reason="their trace id or span id is missing or zero")
        if not encoded.spans:
            if encoded.left_out:
                raise PermanentError("no span has the trace id and span id that Zipkin needs", reason="no_ids")
            return 0
        if len(encoded.body) > self._max_size:
            raise TooLargeError(f"the body has {len(encoded.body)} bytes, but `max_request_size` is {self._max_size}")
        body = compress(self._compression, encoded.body, self._level)
        response = await self._client.request("POST", self._path, body, self._headers, batch.origin)
        if response.status not in _SUCCESS:
            if response.body.startswith(_TOO_LARGE):
                raise TooLargeError(f"HTTP {response.status}: the body is larger than Zipkin accepts")
            raise from_http(response.status, response.headers, response.body)
        return encoded.left_out


def _path(endpoint: Endpoint) -> str:
    """Return the path to request: the path of the URL, unchanged, or `PATH` if it has none."""
    url = urlsplit("" if endpoint.unix else endpoint.strip())
    if url.path in {"", "/"} and not url.query:
        return PATH
    query = f"?{url.query}" if url.query else ""
    return quote((url.path or "/") + query, safe=string.punctuation)


def _encoder(config: Config) -> Encoder[str] | Encoder[bytes]:
    """Return the encoder for the configured format."""
    if config.format == "json":
        from otelwp_agent.codecs.zipkin.to_json import JsonEncoder  # noqa: PLC0415 - only one of the two is needed

        return JsonEncoder(config.default_service_name)
    from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder  # noqa: PLC0415

    return ProtoEncoder(config.default_service_name)


FACTORY = Factory(
    Kind.EXPORTER,
    "zipkin",
    Config,
    ZipkinExporter,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
)
