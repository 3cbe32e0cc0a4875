"""Settings of HTTP/1.1 servers and clients."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from otelwp_agent.config.blocks.auth import CLIENT_MIDDLEWARES, ClientAuth, HttpServerAuth, Middleware
from otelwp_agent.config.blocks.base import BUFFERS, Block, Headers, SecretHeaders
from otelwp_agent.config.blocks.network import Listening, NetworkServer
from otelwp_agent.config.blocks.tls import TlsClient, TlsServer
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.types import ByteSize, Duration, Endpoint, Ignored, PositiveDuration, Refused, Secret

Encoding = Literal["", "gzip", "zstd", "zlib", "deflate"]
Compression = Literal["none", "", "gzip", "zstd", "deflate", "zlib"]

DEFAULT_MAX_BODY = 20 * 2**20

_UNREAD_ENCODINGS = ("snappy", "x-snappy-framed", "lz4")
_LEVELS = {"gzip": (-1, 9), "zlib": (-1, 9), "deflate": (-1, 9), "zstd": (1, 22)}
_HTTP2 = Ignored("this client uses HTTP/1.1")
_POOL = Ignored("`max_conns_per_host` limits all open connections, including idle ones")
_PROXY = Refused("proxies are not supported: make the endpoint reachable from this host, and remove `proxy_url`")


def _only_read_encodings(value: object) -> object:
    return [item for item in value if item not in _UNREAD_ENCODINGS] if isinstance(value, list) else value


def _zero_is_default_body(value: object) -> object:
    return DEFAULT_MAX_BODY if value == 0 and not isinstance(value, bool) else value


Encodings = Annotated[
    tuple[Encoding, ...],
    BeforeValidator(_only_read_encodings, json_schema_input_type=list[str]),
    Ignored("snappy and lz4 are not supported: such requests are refused", values=_UNREAD_ENCODINGS),
]
"""Content encodings. Those that are not supported are removed, with a warning."""


def _is_url(endpoint: Endpoint | None) -> Endpoint | None:
    if endpoint is None or endpoint.unix:
        return endpoint
    if not endpoint.scheme:
        shown = endpoint.redacted
        message = f"{shown} is not a URL: write `http://{shown}` or `https://{shown}`"
        raise ValueError(message)
    if "@" in urlsplit(endpoint).netloc:
        raise ValueError("a URL must not contain a password: give an `authorization` header in `headers`")
    return endpoint


HttpUrl = Annotated[Endpoint, AfterValidator(_is_url)]
"""A URL without credentials, or `unix:///path`."""


class Cors(Block):
    """Which web pages may send requests from a browser."""

    allowed_origins: list[str] = Field(default_factory=list)
    """Allowed origins (`https://shop.example`); `*` matches any characters. Empty: no CORS."""
    allowed_headers: list[str] = Field(default_factory=list)
    """Request headers allowed in addition to the safelist; `*` allows all."""
    exposed_headers: list[str] = Field(default_factory=list)
    """Response headers that the page may read."""
    max_age: int = 0
    """Seconds for which a browser may cache the answer. 0 leaves it to the browser."""


class HttpServer(NetworkServer):
    """An HTTP/1.1 server."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4318")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    tls: TlsServer | None = None
    """TLS settings. Without them, the server does not use TLS."""
    cors: Cors | None = None
    """Allow browsers on other origins."""
    max_request_body_size: Annotated[ByteSize, BeforeValidator(_zero_is_default_body)] = DEFAULT_MAX_BODY
    """Maximum size of a body, before and after decompression. 0 means the default."""
    compression_algorithms: Encodings = ("", "gzip", "zstd", "zlib", "deflate")
    """Accepted content encodings; "" means no compression."""
    include_metadata: bool = False
    """Accepted for compatibility with the Collector, without effect: `batch.metadata_keys` can always use the client's
    headers.
    """
    response_headers: Headers = Field(default_factory=dict)
    """Headers added to every response."""
    read_timeout: Duration = 30.0
    """Maximum time for a whole request to arrive. 0 means no limit."""
    read_header_timeout: Duration = 10.0
    """Maximum time for the headers to arrive. 0 means no limit."""
    write_timeout: Duration = 30.0
    """Maximum time for the client to read a response. 0 means no limit."""
    idle_timeout: Duration = 60.0
    """Maximum time that a connection stays open without a request. 0 means no limit."""
    keep_alives_enabled: bool = True
    """Keep connections open between requests."""
    max_connection_age: Duration = 0.0
    """Time after which a connection is closed, so that a load balancer can choose another server for the next one. It
    varies by up to 10 % between connections. The next request is answered with `Connection: close`. 0 means no limit.
    """
    max_connection_age_grace: Duration = 10.0
    """Additional time for the next request of a connection that has reached its age; then it is closed, after the
    response if a request is in progress.
    """
    max_connections: int = Field(4096, ge=1)
    """Maximum number of open connections, including TLS handshakes. More are answered with 503 and closed (with TLS
    closed at once).
    """
    max_connections_per_peer: int = Field(0, ge=0)
    """Maximum number of open connections from one IP address (IPv6: one /64 network). 0 means no limit. Does not apply
    to unix sockets.
    """
    max_requests_per_second_per_peer: int = Field(0, ge=0)
    """Maximum number of requests per second from one IP address (IPv6: one /64 network), with a burst of one second.

    More are answered with 429. 0 means no limit. Does not apply to unix sockets.
    """
    backlog: int = Field(1024, ge=1)
    """Maximum number of connections that wait in the kernel to be accepted."""
    unix_mode: str = Field("0660", pattern="^0?[0-7]{3}$")
    """File mode of a unix socket."""
    unix_group: str | None = None
    """Group that owns a unix socket."""
    additional_endpoints: list[Listening] = Field(default_factory=list)
    """More addresses to listen on, in the form of `endpoint`: `["[::1]:4318", "unix:///run/otelwp/http.sock"]`.

    An address that this machine does not have (for example without IPv6) is skipped with a warning.
    """
    auth: HttpServerAuth | None = None
    """Authenticate every request. Without it, every client may send."""
    middlewares: list[Middleware] = Field(default_factory=list)
    """Rate limiters that every request must pass, in this order."""

    @model_validator(mode="after")
    def _distinct_endpoints(self) -> HttpServer:
        seen: set[str] = set()
        for endpoint in (self.endpoint, *self.additional_endpoints):
            if endpoint in seen and endpoint.port != 0:
                message = f"{str(endpoint)!r} is given twice: give each address once"
                raise ValueError(message)
            seen.add(endpoint)
        return self


class HttpReceiver(HttpServer):
    """An HTTP/1.1 server that receives telemetry."""

    on_overload: Literal["refuse", "accept_and_drop"] = "refuse"
    """The answer to a request that exceeds the capacity. `refuse`: the sender gets an error and retries later.
    `accept_and_drop`: the request is answered with success, dropped, counted and reported; for senders that would
    otherwise wait inside a web page.
    """


class CompressionParams(Block):
    """Settings of compression."""

    level: int | None = None
    """Level in the encoding's own scale: gzip, zlib, deflate 1 to 9 (-1: their default), zstd 1 to 22. Default: the
    fastest.
    """


class Cookies(Block):
    """Cookies of an HTTP client."""

    enabled: bool = False
    """Accepted for compatibility with the Collector, without effect: cookies are not kept."""


class HttpClient(Block):
    """An HTTP/1.1 client."""

    endpoint: Endpoint | None = None
    """Base URL (`https://collector.example:4318`) or `unix:///path`."""
    tls: TlsClient = TlsClient()
    """TLS settings for https:// endpoints."""
    headers: SecretHeaders = Field(default_factory=dict)
    """Headers added to every request. Values are secrets."""
    compression: Compression = "gzip"
    """Compression of bodies: gzip, zstd, deflate, zlib or none."""
    compression_params: CompressionParams = CompressionParams()
    """Settings of the compression."""
    timeout: PositiveDuration = 30.0
    """Maximum time for one request, from connecting to the last byte of the response."""
    max_conns_per_host: int = Field(0, ge=0)
    """Maximum number of open connections. 0 means as many as the queue has consumers."""
    idle_conn_timeout: Duration = 90.0
    """Time after which an idle connection is closed."""
    disable_keep_alives: bool = False
    """Open a new connection for every request."""
    max_idle_conns: Annotated[int, _POOL] = 0
    """Accepted for compatibility with the Collector, without effect: `max_conns_per_host` limits idle connections too.
    """
    max_idle_conns_per_host: Annotated[int, _POOL] = 0
    """Accepted for compatibility with the Collector, without effect: `max_conns_per_host` limits idle connections too.
    """
    read_buffer_size: Annotated[int, BUFFERS] = 0
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    write_buffer_size: Annotated[int, BUFFERS] = 0
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    force_attempt_http2: Annotated[bool, _HTTP2] = False
    """Accepted for compatibility with the Collector, without effect: this client uses HTTP/1.1."""
    http2_read_idle_timeout: Annotated[Duration, _HTTP2] = 0.0
    """Accepted for compatibility with the Collector, without effect: this client uses HTTP/1.1."""
    http2_ping_timeout: Annotated[Duration, _HTTP2] = 0.0
    """Accepted for compatibility with the Collector, without effect: this client uses HTTP/1.1."""
    cookies: Annotated[
        Cookies | None, Ignored("cookies are not kept between requests", values=({"enabled": True},))
    ] = None
    """Accepted for compatibility with the Collector, without effect: cookies are not kept."""
    proxy_url: Annotated[None, _PROXY] = None
    """Refused: proxies are not supported."""
    auth: ClientAuth | None = None
    """Add a credential to every request. It takes precedence over `headers`."""
    middlewares: Annotated[None, CLIENT_MIDDLEWARES] = None
    """Refused: middleware extensions are supported for servers only."""

    @field_validator("headers")
    @classmethod
    def _headers_are_valid(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name, secret in headers.items():
            problem = header_problem(name, secret.get_secret_value())
            if problem is not None:
                raise ValueError(problem)
        return headers

    @model_validator(mode="after")
    def _level_fits(self) -> HttpClient:
        level, scale = self.compression_params.level, _LEVELS.get(self.compression)
        if level is not None and scale is not None and not scale[0] <= level <= scale[1]:
            message = f"compression_params.level: {self.compression} has levels {scale[0]} to {scale[1]}, not {level}"
            raise ValueError(message)
        return self
