"""Settings of the servers of the control plane: the admin API and OpAMP."""

from __future__ import annotations

from pydantic import Field

from otelwp_agent.config.blocks import AllowedHosts, Listening, NetworkServer, TlsServer
from otelwp_agent.config.types import ByteSize, Duration, Endpoint, PositiveDuration


class ApplicationServerSettings(NetworkServer):
    """An HTTP/1.1 server of the control plane."""

    tls: TlsServer | None = None
    """TLS settings. Without them, the server does not use TLS: tokens are then readable on the network."""
    max_request_body_size: ByteSize = Field(64 * 1024, ge=1024)
    """Maximum size of a body."""
    read_timeout: Duration = 10.0
    """Maximum time for a body to arrive. 0 means no limit."""
    idle_timeout: PositiveDuration = 30.0
    """Maximum time for the head of the next request to arrive."""
    max_connections: int = Field(100, ge=1)
    """Maximum number of open connections; more are closed."""
    backlog: int = Field(128, ge=1)
    """Maximum number of connections that wait in the kernel to be accepted."""
    unix_mode: str = Field("0660", pattern="^0?[0-7]{3}$")
    """File mode of a unix socket."""
    unix_group: str | None = None
    """Group that owns a unix socket."""
    additional_endpoints: list[Listening] = Field(default_factory=list)
    """More addresses to listen on, in the form of `endpoint`."""


class AdminServerSettings(ApplicationServerSettings, AllowedHosts):
    """An HTTP/1.1 server for operators and programs."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13140")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
