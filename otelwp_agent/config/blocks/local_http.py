"""Settings of HTTP endpoints for people and tools on this host: health, metrics, sampling rates."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from otelwp_agent.config.blocks.auth import NO_LOCAL_AUTH
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
        message = f"{value!r} is not a host: write only a name, like `agent.example`, without scheme, port and path"
        raise ValueError(message)
    return text.rstrip(".").lower()


class AllowedHosts(Block):
    """Names by which clients may address an endpoint."""

    allowed_hosts: list[Annotated[str, AfterValidator(_host)]] = Field(default_factory=list)
    """Host names by which clients may address this endpoint, for example `[agent.monitoring.svc]`. Its own addresses,
    `localhost`, the host of `endpoint` and the host name of this machine are always allowed. Requests whose `Host`
    header has another name are refused, which protects against DNS rebinding. `"*"` allows every name. Requests over a
    unix socket are not checked."""


class LocalHttpServer(HttpServer, AllowedHosts):
    """An HTTP/1.1 server for people and tools, not for telemetry."""

    auth: Annotated[None, NO_LOCAL_AUTH] = None
    """Refused: this endpoint is for people and tools on this host."""
    middlewares: Annotated[None, NO_LOCAL_AUTH] = None  # type: ignore[assignment]  # not a list as in its base
    """Refused: this endpoint is for people and tools on this host."""
