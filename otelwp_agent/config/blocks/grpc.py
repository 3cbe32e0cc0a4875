"""Settings of gRPC servers and clients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from otelwp_agent.config.blocks.auth import CLIENT_MIDDLEWARES, ClientAuth, Middleware, ServerAuth
from otelwp_agent.config.blocks.base import BUFFERS, Block, SecretHeaders
from otelwp_agent.config.blocks.network import NetworkServer
from otelwp_agent.config.blocks.tls import TlsClient, TlsServer
from otelwp_agent.config.types import Duration, Endpoint, Ignored, PositiveDuration

DEFAULT_MAX_MIB = 20


def _zero_is_default_message(value: object) -> object:
    return DEFAULT_MAX_MIB if value == 0 and not isinstance(value, bool) else value


class GrpcKeepaliveServer(Block):
    """Limits on the age and idle time of a connection."""

    max_connection_idle: Duration | None = None
    """Close a connection without calls after this time. Default: 10m; 0 never closes it."""
    max_connection_age: Duration | None = None
    """Close a connection after this time."""
    max_connection_age_grace: Duration | None = None
    """Additional time for its calls to end."""
    time: Duration | None = None
    """Send a ping after this time without data from the client."""
    timeout: Duration | None = None
    """Close the connection if the ping is not answered within this time."""


class GrpcKeepaliveEnforcement(Block):
    """Rules for the pings of clients."""

    min_time: Duration | None = None
    """Minimum time between pings."""
    permit_without_stream: bool = False
    """Allow pings without calls."""


class GrpcKeepalive(Block):
    """Keep-alive of a gRPC server."""

    server_parameters: GrpcKeepaliveServer | None = None
    """Limits on the age and idle time of a connection."""
    enforcement_policy: GrpcKeepaliveEnforcement | None = None
    """Rules for the pings of clients."""


class GrpcServer(NetworkServer):
    """A gRPC server."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4317")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    tls: TlsServer | None = None
    """TLS settings. Without them, the server does not use TLS."""
    max_recv_msg_size_mib: Annotated[int, BeforeValidator(_zero_is_default_message)] = Field(
        DEFAULT_MAX_MIB, ge=1, le=2047
    )
    """Maximum size of a message in MiB, after decompression. 0 means the default."""
    max_concurrent_streams: int = Field(100, ge=1)
    """Maximum number of calls at the same time on one connection. More calls end as UNAVAILABLE, and senders retry
    them.
    """
    max_connections: int = Field(4096, ge=1)
    """Maximum number of connections at the same time; more are closed."""
    max_concurrent_streams_per_peer: int = Field(0, ge=0)
    """Maximum number of calls at the same time from one IP address (IPv6: one /64 network), over all its connections.
    More are answered with RESOURCE_EXHAUSTED and `RetryInfo`. 0 means no limit. Does not apply to unix sockets.
    """
    read_timeout: Duration = 30.0
    """Maximum time for a message to arrive. 0 means no limit."""
    keepalive: GrpcKeepalive | None = None
    """Keep-alive settings."""
    include_metadata: bool = False
    """Accepted for compatibility with the Collector, without effect: `batch.metadata_keys` can always use the client's
    metadata.
    """
    read_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    write_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    auth: ServerAuth | None = None
    """Authenticate every call. Without it, every client may send."""
    middlewares: list[Middleware] = Field(default_factory=list)
    """Rate limiters that every call must pass, in this order."""


class GrpcClientKeepalive(Block):
    """Keep-alive of a gRPC client."""

    time: Duration | None = None
    """Send a ping after this time without data from the server."""
    timeout: Duration | None = None
    """Close the connection if the ping is not answered within this time."""
    permit_without_stream: bool = False
    """Send pings even without calls."""


class GrpcClient(Block):
    """A gRPC client."""

    endpoint: Endpoint
    """`host:port`, `https://host:port` (TLS), `http://host:port` (no TLS) or `unix:///path`."""
    tls: TlsClient = TlsClient()
    """TLS settings. TLS is used unless `insecure` is set."""
    headers: SecretHeaders = Field(default_factory=dict)
    """Metadata added to every call. Values are secrets."""
    compression: Literal["none", "", "gzip", "deflate"] = "gzip"
    """Compression of messages; grpcio supports gzip and deflate."""
    timeout: PositiveDuration = 5.0
    """Maximum time for one call."""
    keepalive: GrpcClientKeepalive | None = None
    """Keep-alive settings."""
    authority: str | None = None
    """Value of the `:authority` header. Default: the endpoint."""
    user_agent: str | None = None
    """Text at the start of the `user-agent` header, before grpc's own."""
    balancer_name: Annotated[
        Literal["", "round_robin", "pick_first"], Ignored("one connection is used, to the first address that answers")
    ] = ""
    """Accepted for compatibility with the Collector, without effect: one connection is used, to the first address that
    answers.
    """
    wait_for_ready: Annotated[bool, Ignored("`retry_on_failure` retries until the server is available")] = False
    """Accepted for compatibility with the Collector, without effect: `retry_on_failure` retries until the server is
    available.
    """
    read_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    write_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for compatibility with the Collector, without effect: the operating system sizes buffers."""
    auth: ClientAuth | None = None
    """Add a credential to every call. It takes precedence over `headers`."""
    middlewares: Annotated[None, CLIENT_MIDDLEWARES] = None
    """Refused: middleware extensions are supported for servers only."""

    @field_validator("endpoint")
    @classmethod
    def _has_port(cls, endpoint: Endpoint) -> Endpoint:
        if endpoint.port is None and not endpoint.unix:
            message = f"{str(endpoint)!r} has no port: write `host:port`, like `collector.example:4317`"
            raise ValueError(message)
        return endpoint
