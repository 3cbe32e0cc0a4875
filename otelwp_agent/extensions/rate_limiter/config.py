"""The blocks in the settings of `rate_limiter`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import ByteSize, PositiveDuration, Secret  # noqa: TC001 - fields' annotations
from otelwp_agent.limiting.addresses import parse_network

Key = Literal["tenant", "credential", "address", "route"]
Unit = Literal["requests", "items", "bytes"]


def _is_network(value: str) -> str:
    parse_network(value)
    return value


Cidr = Annotated[str, AfterValidator(_is_network)]
"""An IP address, or a network in CIDR notation."""

PerSecond = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]


class LimitSettings(Block):
    """A limit of one rate, of the requests in progress, or of both."""

    key: Key
    """The senders that are counted together: those of each `tenant`, of each `credential` (API key, user, subject of a
    token), of each client `address` (IPv6: one /64 network), or to each `route` (path, or gRPC method). Senders without
    a tenant or credential share one limit. `address` does not apply to unix sockets."""
    requests_per_second: PerSecond | None = None
    """Rate of requests."""
    items_per_second: PerSecond | None = None
    """Rate of spans, data points and log records."""
    bytes_per_second: Annotated[ByteSize, Field(gt=0)] | None = None
    """Rate of bytes, after decompression and as protobuf: a number, or a number and a unit (`1MiB`)."""
    burst: Annotated[ByteSize, Field(gt=0)] | None = None
    """Requests, items or bytes that are allowed at once. Default: those of one second, at least 1. A larger request is
    accepted when the whole burst is available, and what follows waits longer."""
    concurrent_requests: Annotated[int, Field(gt=0)] | None = None
    """Number of requests in progress at the same time."""

    @property
    def rate(self) -> tuple[Unit, float] | None:
        """The unit and the rate per second, if a rate is limited."""
        rates: list[tuple[Unit, float | None]] = [
            ("requests", self.requests_per_second),
            ("items", self.items_per_second),
            ("bytes", self.bytes_per_second),
        ]
        return next(((unit, value) for unit, value in rates if value is not None), None)

    @model_validator(mode="after")
    def _one_rate(self) -> LimitSettings:
        rates = [self.requests_per_second, self.items_per_second, self.bytes_per_second]
        given = sum(rate is not None for rate in rates)
        if given > 1:
            raise ValueError("several rates in one limit: write a limit of its own for each, because each has a burst")
        if not given and self.concurrent_requests is None:
            message = (
                "nothing is limited: set `requests_per_second`, `items_per_second`, `bytes_per_second` or "
                "`concurrent_requests`"
            )
            raise ValueError(message)
        if self.burst is not None and not given:
            raise ValueError("`burst` belongs to a rate: set a rate, or remove `burst`")
        return self


class Access(Block):
    """Addresses that may send, and addresses that may not."""

    allow: list[Cidr] = Field(default_factory=list)
    """Addresses and networks (`10.0.0.0/8`, `2001:db8::/32`) that may send. Empty: all."""
    deny: list[Cidr] = Field(default_factory=list)
    """Addresses and networks that may not send, also if `allow` contains them."""


class SharedLimits(Block):
    """A Redis server through which several agents share their rates."""

    url: Secret
    """URL of the server: `redis://[user:password@]host:port/database`, `rediss://…` (TLS) or `unix:///path`."""
    prefix: str = Field("otelwp", min_length=1, pattern=r"^[^{}\s]+$")
    """Beginning of the names of all keys. Agents with the same prefix share their limits."""
    replicas: int = Field(2, ge=1)
    """Number of agents that share the limits. While Redis is unreachable, each of them allows this part of a limit."""
    timeout: PositiveDuration = 0.25
    """Maximum time for a call; no request waits for it. A slower server counts as unreachable."""
