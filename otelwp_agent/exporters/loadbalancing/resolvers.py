"""Sources of the backends: a fixed list, or the addresses of a host name."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Endpoint, PositiveDuration, Refused

PORT = 4317
"""Port of backends that are given without one."""

_K8S = Refused(
    "the Kubernetes API is not supported: remove `k8s`, create a headless service (`clusterIP: None`) for the backends "
    "and give its name as `dns: {hostname: service.namespace.svc.cluster.local}`"
)
_CLOUD_MAP = Refused(
    "the AWS API is not supported: remove `aws_cloud_map`, and give the DNS name of the Cloud Map service as "
    "`dns: {hostname: service.namespace}`"
)


class StaticResolver(Block):
    """A fixed list of backends."""

    hostnames: list[Endpoint] = Field(min_length=1)
    """The backends as `host:port`; the port is 4317 if it is left out."""

    @field_validator("hostnames")
    @classmethod
    def _valid(cls, hostnames: list[Endpoint]) -> list[Endpoint]:
        seen: set[str] = set()
        for hostname in hostnames:
            if hostname.scheme or hostname.path or hostname.unix or not hostname.host:
                message = f"{hostname.redacted!r}: write `host:port`; TLS is configured under `protocol.otlp.tls`"
                raise ValueError(message)
            name = with_port(hostname)
            if name in seen:
                message = f"{name!r} is in the list twice: remove one of them"
                raise ValueError(message)
            seen.add(name)
        return hostnames


class DnsResolver(Block):
    """A host name whose addresses are the backends."""

    hostname: str = Field(min_length=1)
    """The name, without a port."""
    port: int = Field(PORT, ge=1, le=65535)
    """Port of each backend."""
    interval: PositiveDuration = 5.0
    """Time between look-ups."""
    timeout: PositiveDuration = 1.0
    """Maximum time for a look-up. After a failure, the backends stay as they are."""

    @field_validator("port", mode="before")
    @classmethod
    def _number(cls, port: object) -> object:
        return int(port) if isinstance(port, str) and port.isdecimal() else port  # the Collector's type is a string

    @field_validator("hostname")
    @classmethod
    def _plain(cls, hostname: str) -> str:
        if any(mark in hostname for mark in ":/ "):
            message = f"{hostname!r} is not a host name: write the name alone, and the port as `port`"
            raise ValueError(message)
        return hostname


class Resolver(Block):
    """Source of the backends: `static` or `dns`."""

    static: StaticResolver | None = None
    """A fixed list of backends."""
    dns: DnsResolver | None = None
    """A host name whose addresses are the backends."""
    k8s: Annotated[None, _K8S] = None
    """Refused: use `dns` with the name of a headless service."""
    aws_cloud_map: Annotated[None, _CLOUD_MAP] = None
    """Refused: use `dns` with the DNS name of the Cloud Map service."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.static is None) == (self.dns is None):
            given = "both are given" if self.static is not None else "none is given"
            message = f"give one of `static` and `dns`: {given}"
            raise ValueError(message)
        return self


def with_port(endpoint: Endpoint) -> str:
    """Return a backend as `host:port`."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port or PORT}"
