"""gRPC servers and clients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from otelwp_agent.config.blocks.base import BUFFERS, CLIENT_AUTH, MIDDLEWARES, SERVER_AUTH, Block, SecretHeaders
from otelwp_agent.config.blocks.network import NetworkServer
from otelwp_agent.config.blocks.tls import TlsClient, TlsServer
from otelwp_agent.config.types import Duration, Endpoint, Ignored, PositiveDuration

DEFAULT_MAX_MIB = 20


def _zero_is_default_message(value: object) -> object:
    return DEFAULT_MAX_MIB if value == 0 and not isinstance(value, bool) else value


class GrpcKeepaliveServer(Block):
    """Limits on a connection's age and silence."""

    max_connection_idle: Duration | None = None
    """Close a connection without calls after this long; 10m if left out, 0 for never."""
    max_connection_age: Duration | None = None
    """Close a connection after this long."""
    max_connection_age_grace: Duration | None = None
    """Time for its calls to end then."""
    time: Duration | None = None
    """Ping a silent client after this long."""
    timeout: Duration | None = None
    """Close the connection if the ping is not answered within this time."""


class GrpcKeepaliveEnforcement(Block):
    """What pings a client may send."""

    min_time: Duration | None = None
    """Shortest time between pings."""
    permit_without_stream: bool = False
    """Allow pings without calls."""


class GrpcKeepalive(Block):
    """Keep-alive of a gRPC server."""

    server_parameters: GrpcKeepaliveServer | None = None
    """Limits on a connection's age and silence."""
    enforcement_policy: GrpcKeepaliveEnforcement | None = None
    """What pings a client may send."""


class GrpcServer(NetworkServer):
    """A gRPC server."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4317")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    tls: TlsServer | None = None
    """Serve TLS."""
    max_recv_msg_size_mib: Annotated[int, BeforeValidator(_zero_is_default_message)] = Field(
        DEFAULT_MAX_MIB, ge=1, le=2047
    )
    """Largest message, in MiB, after decompression; 0 is the default."""
    max_concurrent_streams: int = Field(100, ge=1)
    """Calls at once on one connection. Those beyond it end as UNAVAILABLE, which senders try again."""
    max_connections: int = Field(4096, ge=1)
    """Connections served at once; more are closed."""
    max_concurrent_streams_per_peer: int = Field(0, ge=0)
    """Calls at once from one IP address (IPv6: one /64 network), over all its connections; more are answered
    RESOURCE_EXHAUSTED with `RetryInfo`. 0 for no limit. Unix sockets have none."""
    read_timeout: Duration = 30.0
    """Time for a message to arrive; 0 for no limit."""
    keepalive: GrpcKeepalive | None = None
    """Keep-alive settings."""
    include_metadata: bool = False
    """Accepted for the Collector's sake: `batch.metadata_keys` always sees the client's metadata here."""
    read_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for the Collector's sake: the operating system sizes buffers."""
    write_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for the Collector's sake: the operating system sizes buffers."""
    auth: Annotated[None, SERVER_AUTH] = None
    """Refused: there are no authenticator extensions."""
    middlewares: Annotated[None, MIDDLEWARES] = None
    """Refused: there are no middleware extensions."""


class GrpcClientKeepalive(Block):
    """Keep-alive of a gRPC client."""

    time: Duration | None = None
    """Ping a silent server after this long."""
    timeout: Duration | None = None
    """Give the connection up if the ping is not answered within this time."""
    permit_without_stream: bool = False
    """Ping even without calls."""


class GrpcClient(Block):
    """A gRPC client."""

    endpoint: Endpoint
    """`host:port`, `https://host:port` (TLS), `http://host:port` (no TLS) or `unix:///path`."""
    tls: TlsClient = TlsClient()
    """TLS; on unless `insecure`."""
    headers: SecretHeaders = Field(default_factory=dict)
    """Metadata added to every call. Values are secrets."""
    compression: Literal["none", "", "gzip", "deflate"] = "gzip"
    """How messages are compressed; grpcio has gzip and deflate."""
    timeout: PositiveDuration = 5.0
    """Time for one call."""
    keepalive: GrpcClientKeepalive | None = None
    """Keep-alive settings."""
    authority: str | None = None
    """Value of the `:authority` header, if not the endpoint's."""
    user_agent: str | None = None
    """Value of the `user-agent` header, before grpc's own."""
    balancer_name: Annotated[
        Literal["", "round_robin", "pick_first"], Ignored("one connection is kept, to the first address that answers")
    ] = ""
    """Accepted for the Collector's sake: one connection is kept, to the first address that answers."""
    wait_for_ready: Annotated[bool, Ignored("`retry_on_failure` tries again until the server is there")] = False
    """Accepted for the Collector's sake: `retry_on_failure` tries again until the server is there."""
    read_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for the Collector's sake: the operating system sizes buffers."""
    write_buffer_size: Annotated[int, BUFFERS] = Field(0, ge=0)
    """Accepted for the Collector's sake: the operating system sizes buffers."""
    auth: Annotated[None, CLIENT_AUTH] = None
    """Refused: give the credential in `headers`."""
    middlewares: Annotated[None, MIDDLEWARES] = None
    """Refused: there are no middleware extensions."""

    @field_validator("endpoint")
    @classmethod
    def _has_port(cls, endpoint: Endpoint) -> Endpoint:
        if endpoint.port is None and not endpoint.unix:
            message = f"{str(endpoint)!r} has no port: write `host:port`, like `collector.example:4317`"
            raise ValueError(message)
        return endpoint
