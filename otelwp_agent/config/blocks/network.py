"""Settings that all listening sockets share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, field_validator, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Duration, Endpoint, Ignored

_DIALER = Ignored("a server makes no connections")


class Dialer(Block):
    """Settings of outgoing connections. The Collector accepts them on servers too, where they have no effect."""

    timeout: Annotated[Duration, _DIALER] = 0.0
    """Accepted for compatibility with the Collector, without effect: a server makes no connections."""


def _listenable(endpoint: Endpoint) -> Endpoint:
    if endpoint.scheme or endpoint.path:
        message = f"a server listens on an address, not on the URL {str(endpoint)!r}: write `host:port`"
        raise ValueError(message)
    if endpoint.port is None and not endpoint.unix:
        message = f"{str(endpoint)!r} has no port: write `host:port`, like `127.0.0.1:4317`"
        raise ValueError(message)
    return endpoint


Listening = Annotated[Endpoint, AfterValidator(_listenable)]
"""An endpoint that a server can listen on."""


class NetworkServer(Block):
    """Address of a server."""

    endpoint: Endpoint
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    transport: Literal["tcp", "tcp4", "tcp6", "unix"] = "tcp"
    """With `unix`, `endpoint` is the path of a socket. The other values have no effect: `endpoint` decides."""
    dialer: Dialer | None = None
    """Accepted for compatibility with the Collector, without effect: a server makes no connections."""

    @model_validator(mode="before")
    @classmethod
    def _path_is_unix_endpoint(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        if isinstance(data, dict) and data.get("transport") == "unix":
            endpoint = data.get("endpoint")
            if isinstance(endpoint, str) and not endpoint.startswith("unix:"):
                return {**data, "endpoint": f"unix://{endpoint}"}
        return data

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_listenable(cls, endpoint: Endpoint) -> Endpoint:
        return _listenable(endpoint)
