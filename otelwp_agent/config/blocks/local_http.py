"""Settings of HTTP endpoints for people and tools on this host: health, metrics, sampling rates."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.blocks.http import HttpServer

ANY_HOST = "*"
"""The entry of `allowed_hosts` that allows every host."""

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


def _host(value: str) -> str:
    text = value.strip()
    if text == ANY_HOST:
        return text
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    if not _NAME.fullmatch(text):
        message = f"{value!r} is not a host: write a name alone, like `agent.example`, without scheme, port and path"
        raise ValueError(message)
    return text.rstrip(".").lower()


class AllowedHosts(Block):
    """By which names clients may address an endpoint."""

    allowed_hosts: list[Annotated[str, AfterValidator(_host)]] = Field(default_factory=list)
    """Host names by which clients may address this endpoint, beside its own addresses, `localhost`, the host of
    `endpoint` and the host name of this machine: `[agent.monitoring.svc]`. Requests whose `Host` header has another
    name are refused, which protects against DNS rebinding. `"*"` allows every name. Clients on a unix socket are never
    asked."""


class LocalHttpServer(HttpServer, AllowedHosts):
    """An HTTP/1.1 server for people and tools, not for telemetry."""
