"""Send traces to Jaeger: as OTLP, which every Jaeger from 1.35 on takes, or in Jaeger's own formats to older ones.

It stands at the end of a pipeline. `protocol: otlp_grpc` (the default) and `otlp_http` send batches as the bytes they
are, and are the exporters of these names; `grpc` (`PostSpans`, port 14250) and `thrift_http` (port 14268) translate,
and lose what Jaeger's formats cannot carry (docs/topics/jaeger.md). What may succeed later is tried again
(`retry_on_failure`), and the queue before it bounds memory.

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
"""Where Jaeger listens for each protocol."""

MAX_REQUEST_SIZES: dict[str, int] = {
    "otlp_grpc": 4 * 2**20 - 2**16,
    "otlp_http": 20 * 2**20,
    "grpc": 4 * 2**20 - 2**16,
    "thrift_http": 20 * 2**20,
}
"""What the other side takes by default, 4 MiB in gRPC, less a margin for what splitting adds."""

_GROWTH = {"otlp_grpc": 1.0, "otlp_http": 1.0, "grpc": 1.25, "thrift_http": 1.6}
"""How much larger a batch becomes by translation, about: it is split before, so that it need not be split after."""

_UNFINISHED = 64
"""Batches of several resources that are remembered half sent, so that a retry sends the other half only."""

_SUCCESS = range(200, 300)


class Config(ExporterConfig):
    """Settings of the Jaeger exporter."""

    protocol: Protocol = "otlp_grpc"
    """What is spoken: OTLP to Jaeger 1.35 and later; `grpc` or `thrift_http` to older ones."""
    endpoint: Endpoint | None = None
    """`host:port`, a URL or `unix:///path`; `localhost` and the protocol's port (4317, 4318, 14250, 14268) if left
    out."""
    tls: blocks.TlsClient | None = None
    """TLS. If left out, it is spoken with `https://` endpoints and with other hosts, not with this one."""
    headers: blocks.SecretHeaders = Field(default_factory=dict)
    """Headers, or gRPC metadata, added to every request. Values are secrets."""
    compression: Literal["none", "", "gzip", "zstd", "deflate", "zlib"] | None = None
    """How requests are compressed. gzip if left out, and none with `thrift_http`, where Jaeger reads none."""
    timeout: PositiveDuration | None = None
    """Time for one request; 5s over gRPC and 30s over HTTP if left out."""
    max_request_size: ByteSize | None = Field(None, ge=1024)
    """Largest request sent, before compression; larger batches are split. What Jaeger takes by default (4 MiB over
    gRPC, 20 MiB over HTTP) if left out."""

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
            message = "Jaeger reads no compression where it takes Thrift: remove `compression`, or use `otlp_http`"
            raise ValueError(message)
        blocks.HttpClient.model_validate(self.client_settings())
        return self

    def client_settings(self) -> dict[str, Any]:
        """Return what a client of the protocol is set up with."""
        tls, endpoint = self.tls or blocks.TlsClient(insecure=self._is_plain()), self.endpoint
        if endpoint is None:
            endpoint = Endpoint(f"localhost:{PORTS[self.protocol]}")
        if self.protocol in {"otlp_http", "thrift_http"} and not (endpoint.scheme or endpoint.unix):
            endpoint = Endpoint(f"{'http' if tls.insecure else 'https'}://{endpoint}")
        settings: dict[str, Any] = {
            "endpoint": endpoint,
            "tls": tls.model_dump(exclude_unset=True),
            "headers": self.headers,
        }
        if self.compression is not None:
            settings["compression"] = self.compression
        if self.timeout is not None:
            settings["timeout"] = format_duration(self.timeout)
        return settings

    @property
    def request_size(self) -> int:
        """The largest request that is sent."""
        return self.max_request_size or MAX_REQUEST_SIZES[self.protocol]

    def _is_plain(self) -> bool:
        """Whether nothing says that TLS is spoken: the endpoint is on this host, or says `http://`."""
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
        """Open nothing before `start`."""
        super().__init__(context)
        self._settings = blocks.GrpcClient.model_validate(config.client_settings())
        self._limit = config.request_size
        self.max_request_bytes = int(self._limit / _GROWTH["grpc"])
        self._client: GrpcClient | None = None

    async def start(self) -> None:
        """Read certificates and open the channel; the connection is made by the first export."""
        from otelwp_agent.transport.grpc_client import GrpcClient  # noqa: PLC0415 - grpcio, 13 MB, for who starts this

        client = GrpcClient(self._settings, name=f"{self.context.kind.value}/{self.context.id}", log=self.context.log)
        await client.start()
        self._client = client

    async def shutdown(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def refresh(self) -> None:
        """Read the certificates again."""
        if self._client is not None:
            self._client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Send the batch; Jaeger takes all of it or nothing."""
        from otelwp_agent.codecs.jaeger import to_proto  # noqa: PLC0415 - for who speaks it

        if self._client is None:
            raise RuntimeError("the exporter is not started")
        message = to_proto.encode(batch.body)
        if message:
            _check_size(message, self._limit, batch)
            await self._client.call(POST_SPANS, message)
        return 0


class JaegerThriftExporter(Exporter):
    """Posts Thrift, one request for each resource of a batch."""

    def __init__(self, config: Config, context: Context) -> None:
        """Open nothing before `start`."""
        super().__init__(context)
        settings = blocks.HttpClient.model_validate(config.client_settings())
        endpoint = settings.endpoint or Endpoint(f"localhost:{PORTS['thrift_http']}")
        self._limit = config.request_size
        self.max_request_bytes = int(self._limit / _GROWTH["thrift_http"])
        name = f"{context.kind.value}/{context.id}"
        self._client = HttpClient(settings, endpoint, name=name, log=context.log)
        self._path = endpoint.path or THRIFT_PATH
        self._headers = (("Content-Type", THRIFT_TYPE), ("User-Agent", f"otelwp-agent/{__version__}"))
        self._unfinished: dict[int, tuple[bytes, int]] = {}
        """Bodies that were sent in part, by identity, and how many of their requests were taken."""

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
        """Post the batch; a retry of one that was taken in part goes on where that ended."""
        from otelwp_agent.codecs.jaeger import to_thrift  # noqa: PLC0415 - for who speaks it

        requests = to_thrift.encode(batch.body)
        for request in requests:
            _check_size(request, self._limit, batch)
        _, done = self._unfinished.pop(id(batch.body), (b"", 0))
        for index, request in enumerate(requests[done:], done):
            try:
                response = await self._client.request("POST", self._path, request, self._headers)
                if response.status not in _SUCCESS:
                    raise _meaning(from_http(response.status, response.headers, response.body))
            except RetryableError:
                self._remember(batch.body, index)
                raise
        return 0

    def _remember(self, body: bytes, done: int) -> None:
        if done:
            while len(self._unfinished) >= _UNFINISHED:
                del self._unfinished[next(iter(self._unfinished))]
            self._unfinished[id(body)] = body, done


def _meaning(error: ConsumeError) -> ConsumeError:
    """Return what an answer means: Jaeger's collector says 500 when its queue is full."""
    if isinstance(error, PermanentError) and error.reason == "http_500":
        return RetryableError(str(error), reason=error.reason)
    return error


def _check_size(request: bytes, limit: int, batch: Batch) -> None:
    if len(request) > limit and batch.items > 1:
        message = f"the request has {len(request)} bytes in Jaeger's format; {limit} are sent at most"
        raise TooLargeError(message)


def _build(config: Config, context: Context) -> Exporter:
    """Return the exporter of the protocol; OTLP has exporters of its own."""
    if config.protocol == "grpc":
        return JaegerGrpcExporter(config, context)
    if config.protocol == "thrift_http":
        return JaegerThriftExporter(config, context)
    factory = Catalog().get(Kind.EXPORTER, config.protocol)
    if factory is None:
        message = f"there is no exporter {config.protocol}"
        raise TypeError(message)
    settings = {**config.client_settings(), "max_request_size": config.request_size}
    exporter = factory.build(factory.config.model_validate(settings), context)
    if not isinstance(exporter, Exporter):
        message = f"{config.protocol} is no exporter"
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
