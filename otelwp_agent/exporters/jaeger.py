"""Send traces to Jaeger: as OTLP to Jaeger 1.35 and later, or in Jaeger's own formats to older versions.

`protocol: otlp_grpc` (the default) and `otlp_http` send batches unchanged, with the exporters of these names. `grpc`
(`PostSpans`, port 14250) and `thrift_http` (port 14268) translate, and lose what Jaeger's formats cannot represent
(docs/topics/jaeger.md). Failures that may pass are retried (`retry_on_failure`); the queue of the exporter limits its
memory.

Example::

    exporters:
      jaeger:
        endpoint: localhost:4317
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

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
from otelwp_agent.components import Catalog
from otelwp_agent.config import blocks
from otelwp_agent.config.types import ByteSize, Endpoint, PositiveDuration, format_duration
from otelwp_agent.errors import ConsumeError, PermanentError, RetryableError, TooLargeError
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http
from otelwp_agent.transport.tls import beyond_grpc

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.grpc_client import GrpcClient

Protocol = Literal["otlp_grpc", "otlp_http", "grpc", "thrift_http"]

POST_SPANS = "/jaeger.api_v2.CollectorService/PostSpans"
THRIFT_PATH = "/api/traces"
THRIFT_TYPE = "application/x-thrift"

PORTS: dict[str, int] = {"otlp_grpc": 4317, "otlp_http": 4318, "grpc": 14250, "thrift_http": 14268}
"""Jaeger's default port for each protocol."""

MAX_REQUEST_SIZES: dict[str, int] = {
    "otlp_grpc": 4 * 2**20 - 2**16,
    "otlp_http": 20 * 2**20,
    "grpc": 4 * 2**20 - 2**16,
    "thrift_http": 20 * 2**20,
}
"""Default request limits of Jaeger; for gRPC, 4 MiB minus a margin for the bytes that splitting adds."""

_GROWTH = {"otlp_grpc": 1.0, "otlp_http": 1.0, "grpc": 1.25, "thrift_http": 1.6}
"""Approximate factor by which translation enlarges a batch. Batches are split accordingly before translation, so that
they need not be split after it."""

_UNFINISHED = 64
"""Largest number of partly sent batches to remember, so that a retry sends only the rest."""

_SUCCESS = range(200, 300)


class Config(ExporterConfig):
    """Settings of the Jaeger exporter."""

    protocol: Protocol = "otlp_grpc"
    """Protocol: OTLP for Jaeger 1.35 and later; `grpc` or `thrift_http` for older versions."""
    endpoint: Endpoint | None = None
    """`host:port`, a URL or `unix:///path`. Default: `localhost` and the protocol's port (4317, 4318, 14250, 14268)."""
    tls: blocks.TlsClient | None = None
    """TLS settings. If left out, TLS is used for `https://` endpoints and for other hosts, but not for this host."""
    headers: blocks.SecretHeaders = Field(default_factory=dict)
    """Headers, or gRPC metadata, added to every request. Values are secrets."""
    auth: blocks.ClientAuth | None = None
    """Add a credential to every request. It takes precedence over `headers`."""
    compression: Literal["none", "", "gzip", "zstd", "deflate", "zlib"] | None = None
    """Compression of requests. Default: gzip; none with `thrift_http`, for which Jaeger supports none."""
    timeout: PositiveDuration | None = None
    """Time for one request; 5s over gRPC and 30s over HTTP if left out."""
    max_request_size: ByteSize | None = Field(None, ge=1024)
    """Largest request before compression; larger batches are split. Default: Jaeger's default limit (4 MiB over gRPC,
    20 MiB over HTTP)."""

    @model_validator(mode="after")
    def _can_be_spoken(self) -> Config:
        if self.protocol in {"otlp_grpc", "grpc"}:
            client = blocks.GrpcClient.model_validate(self.client_settings())
            problem = beyond_grpc(client.tls)
            if problem is not None:
                message = f"tls: {problem}"
                raise ValueError(message)
            return self
        if self.protocol == "thrift_http" and self.compression not in {None, "none", ""}:
            message = "Jaeger does not support compression for Thrift: remove `compression`, or use `otlp_http`"
            raise ValueError(message)
        blocks.HttpClient.model_validate(self.client_settings())
        return self

    def client_settings(self) -> dict[str, Any]:
        """Return the settings of the protocol's client."""
        tls, endpoint = self.tls or blocks.TlsClient(insecure=self._is_plain()), self.endpoint
        if endpoint is None:
            endpoint = Endpoint(f"localhost:{PORTS[self.protocol]}")
        if self.protocol in {"otlp_http", "thrift_http"} and not (endpoint.scheme or endpoint.unix):
            endpoint = Endpoint(f"{'http' if tls.insecure else 'https'}://{endpoint}")
        settings: dict[str, Any] = {
            "endpoint": endpoint,
            "tls": tls.model_dump(exclude_unset=True),
            "headers": self.headers,
            "auth": self.auth,
        }
        if self.compression is not None:
            settings["compression"] = self.compression
        if self.timeout is not None:
            settings["timeout"] = format_duration(self.timeout)
        return settings

    @property
    def request_size(self) -> int:
        """Size of the largest request, in bytes."""
        return self.max_request_size or MAX_REQUEST_SIZES[self.protocol]

    def _is_plain(self) -> bool:
        """Whether to connect without TLS: the endpoint is on this host, or its scheme is `http`."""
        endpoint = self.endpoint
        if endpoint is None or endpoint.unix or endpoint.scheme:
            return endpoint is None or endpoint.scheme != "https"
        try:
            return ipaddress.ip_address(endpoint.host).is_loopback
        except ValueError:
            return endpoint.host == "localhost"


class JaegerGrpcExporter(Exporter):
    """Calls `PostSpans`, with all resources of a batch in one request."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        self._settings = blocks.GrpcClient.model_validate(config.client_settings())
        self._authenticator = context.client_authenticator(config.auth)
        self.headers = self._authenticator.reads if self._authenticator is not None else ()
        self._limit = config.request_size
        self.max_request_bytes = int(self._limit / _GROWTH["grpc"])
        self._client: GrpcClient | None = None

    async def start(self) -> None:
        """Read the certificates and open the channel; the first export connects."""
        from otelwp_agent.transport.grpc_client import GrpcClient  # noqa: PLC0415 - loads grpcio, 13 MB

        name = f"{self.context.kind.value}/{self.context.id}"
        client = GrpcClient(self._settings, name=name, log=self.context.log, authenticator=self._authenticator)
        await client.start()
        self._client = client

    async def shutdown(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def refresh(self) -> None:
        """Reload the certificates."""
        if self._client is not None:
            self._client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Send the batch; Jaeger accepts all of it or nothing."""
        from otelwp_agent.codecs.jaeger import to_proto  # noqa: PLC0415 - only for this protocol

        if self._client is None:
            raise RuntimeError("the exporter is not started")
        message = to_proto.encode(batch.body)
        if message:
            _check_size(message, self._limit, batch)
            await self._client.call(POST_SPANS, message, batch.origin)
        return 0


class JaegerThriftExporter(Exporter):
    """Posts Thrift, one request for each resource of a batch."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        settings = blocks.HttpClient.model_validate(config.client_settings())
        endpoint = settings.endpoint or Endpoint(f"localhost:{PORTS['thrift_http']}")
        self._limit = config.request_size
        self.max_request_bytes = int(self._limit / _GROWTH["thrift_http"])
        name = f"{context.kind.value}/{context.id}"
        authenticator = context.client_authenticator(config.auth)
        self.headers = authenticator.reads if authenticator is not None else ()
        self._client = HttpClient(settings, endpoint, name=name, log=context.log, authenticator=authenticator)
        self._path = endpoint.path or THRIFT_PATH
        self._headers = (("Content-Type", THRIFT_TYPE), ("User-Agent", f"otelwp-agent/{__version__}"))
        self._unfinished: dict[int, tuple[bytes, int]] = {}
        """Bodies that were sent in part, by identity, each with the number of its accepted requests."""

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
        """Post the batch; the retry of a batch that was accepted in part sends only the rest."""
        from otelwp_agent.codecs.jaeger import to_thrift  # noqa: PLC0415 - only for this protocol

        requests = to_thrift.encode(batch.body)
        for request in requests:
            _check_size(request, self._limit, batch)
        _, done = self._unfinished.pop(id(batch.body), (b"", 0))
        for index, request in enumerate(requests[done:], done):
            try:
                response = await self._client.request("POST", self._path, request, self._headers, batch.origin)
                if response.status not in _SUCCESS:
                    raise _full_is_retryable(from_http(response.status, response.headers, response.body))
            except RetryableError:
                self._remember(batch.body, index)
                raise
        return 0

    def _remember(self, body: bytes, done: int) -> None:
        if done:
            while len(self._unfinished) >= _UNFINISHED:
                del self._unfinished[next(iter(self._unfinished))]
            self._unfinished[id(body)] = body, done


def _full_is_retryable(error: ConsumeError) -> ConsumeError:
    """Return `error`, but make status 500 retryable, with which Jaeger's collector reports that its queue is full."""
    if isinstance(error, PermanentError) and error.reason == "http_500":
        return RetryableError(str(error), reason=error.reason)
    return error


def _check_size(request: bytes, limit: int, batch: Batch) -> None:
    if len(request) > limit and batch.items > 1:
        message = f"the request has {len(request)} bytes in Jaeger's format, but the limit is {limit}"
        raise TooLargeError(message)


def _build(config: Config, context: Context) -> Exporter:
    """Return the exporter of the protocol; for OTLP, the exporter `otlp_grpc` or `otlp_http`."""
    if config.protocol == "grpc":
        return JaegerGrpcExporter(config, context)
    if config.protocol == "thrift_http":
        return JaegerThriftExporter(config, context)
    factory = Catalog().get(Kind.EXPORTER, config.protocol)
    if factory is None:
        message = f"exporter {config.protocol} does not exist"
        raise TypeError(message)
    settings = {**config.client_settings(), "max_request_size": config.request_size}
    exporter = factory.build(factory.config.model_validate(settings), context)
    if not isinstance(exporter, Exporter):
        message = f"{config.protocol} is not an exporter"
        raise TypeError(message)
    return exporter


FACTORY = Factory(
    Kind.EXPORTER,
    "jaeger",
    Config,
    _build,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
)
