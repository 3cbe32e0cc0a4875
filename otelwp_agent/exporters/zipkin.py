"""Send traces to Zipkin, or to whatever takes its v2 format, as JSON or protobuf.

It stands at the end of a pipeline. Spans are written straight from the bytes they are in. docs/topics/zipkin.md has
the mapping, and what the format cannot carry. What may succeed later is tried again (`retry_on_failure`), and the queue
before it bounds memory.

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
"""What Zipkin's server takes in one body (tried with 3.4.4): its HTTP server's default."""

DEFAULT_SERVICE_NAME = "unknown_service"
"""The name that the specification gives to services without one ("Resource SDK", SDK-provided resource attributes)."""

PATH = "/api/v2/spans"
"""Where Zipkin takes spans."""

_TYPES = {"proto": "application/x-protobuf", "json": "application/json"}
_SUCCESS = range(200, 300)
_TOO_LARGE = b"413 "
"""What Zipkin's server answers to a body that is too large, with the status 500."""


class Config(ExporterConfig, blocks.HttpClient):
    """Settings of the Zipkin exporter."""

    endpoint: blocks.HttpUrl
    """URL to post to, like `http://127.0.0.1:9411/api/v2/spans`, or `unix:///path` of a socket. Without a path it is
    `/api/v2/spans`."""
    format: Literal["json", "proto"] = "json"
    """How spans are written."""
    default_service_name: str = Field(DEFAULT_SERVICE_NAME, min_length=1)
    """What a service without a name is called."""
    compression: blocks.Compression = "none"
    """How bodies are compressed: gzip, which is all that Zipkin's own server reads, zstd, deflate, zlib or none."""
    timeout: PositiveDuration = 5.0
    """Time for one request, from connecting to the last byte of the response."""
    max_request_size: ByteSize = Field(MAX_REQUEST_SIZE, ge=1024)
    """Largest body sent, before compression; larger batches are split."""


class ZipkinExporter(Exporter):
    """Posts each batch as one list of spans."""

    def __init__(self, config: Config, context: Context) -> None:
        """Open nothing before `start`."""
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
        self._client = HttpClient(config, endpoint, name=name, log=context.log)
        self._left_out = LogLimit(context.clock)

    async def start(self) -> None:
        """Read certificates; connections are made by the first export."""
        await self._client.start()

    async def shutdown(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def refresh(self) -> None:
        """Read the certificates again."""
        self._client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Post the batch; return how many spans of it Zipkin cannot carry."""
        encoded = self._encoder.encode(batch.body)
        if encoded.left_out and (spans := self._left_out.take(encoded.left_out)):
            self.context.log.error("spans left out", spans=spans, reason="their trace id or span id is missing or zero")
        if not encoded.spans:
            if encoded.left_out:
                raise PermanentError("no span has the ids that Zipkin needs", reason="no_ids")
            return 0
        if len(encoded.body) > self._max_size:
            raise TooLargeError(f"{len(encoded.body)} bytes, and `max_request_size` is {self._max_size}")
        body = compress(self._compression, encoded.body, self._level)
        response = await self._client.request("POST", self._path, body, self._headers)
        if response.status not in _SUCCESS:
            if response.body.startswith(_TOO_LARGE):
                raise TooLargeError(f"HTTP {response.status}: Zipkin takes no body as large as this")
            raise from_http(response.status, response.headers, response.body)
        return encoded.left_out


def _path(endpoint: Endpoint) -> str:
    """Return the path to request: the URL's own, byte for byte, or where Zipkin takes spans if it has none."""
    url = urlsplit("" if endpoint.unix else endpoint.strip())
    if url.path in {"", "/"} and not url.query:
        return PATH
    query = f"?{url.query}" if url.query else ""
    return quote((url.path or "/") + query, safe=string.punctuation)


def _encoder(config: Config) -> Encoder[str] | Encoder[bytes]:
    """Return what writes the configured format."""
    if config.format == "json":
        from otelwp_agent.codecs.zipkin.to_json import JsonEncoder  # noqa: PLC0415 - one of the two is enough

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
