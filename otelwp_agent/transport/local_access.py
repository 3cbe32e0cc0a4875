"""Refuse requests that a web page in a browser on this host may send to the agent's local HTTP endpoints.

A page can reach loopback and the private network in two ways:

* **DNS rebinding**: the page's own host name suddenly resolves to 127.0.0.1, so that the page may read the answers. Its
  requests carry that name in `Host`. A page cannot forge this header, so a foreign name is refused.
* **Cross-origin requests**: a form, or `fetch` in mode `no-cors`, sends a POST whose answer the page cannot read.
  Browsers mark it with `Origin`, newer ones also with `Sec-Fetch-Site`.

Requests without `Host` (HTTP/1.0 probes) and without `Origin` do not come from a browser and are accepted. A page
cannot reach unix sockets, so they are not checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from otelwp_agent.config.blocks.local_http import ANY_HOST
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.http_messages import text_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    import structlog

    from otelwp_agent.config.types import Endpoint
    from otelwp_agent.transport.http_messages import Request, Response, Route

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

REFUSED = "request refused"
"""Log event: a request that a browser may have sent for a foreign page was refused."""

CROSS_ORIGIN = text_error(
    403,
    "a web page of another origin may not send to this endpoint; to allow it, add its origin to `cors.allowed_origins`",
)
"""The answer of a receiver to such a request."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_SHOWN = 100
"""Maximum number of characters of a foreign host name in messages."""
_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^\[\]:/@\s,]*)(?::\d{0,5})?", re.IGNORECASE)
"""A `Host` header (RFC 9110, 7.2): a name or address, and a port."""


class LocalAccess:
    """Decides which requests the endpoint `setting` answers.

    `endpoints` are its listening addresses, `allowed` are its `allowed_hosts`. Messages name `setting` as the place to
    change.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        allowed: Sequence[str],
        *,
        setting: str,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        """Compute the allowed names and addresses. Nothing is resolved, so this does not block."""
        self._setting = setting
        self._log = log
        self._limit = LogLimit(clock)
        self._any = ANY_HOST in allowed
        machine = socket.gethostname().lower()
        self._names = {"localhost", machine, machine.partition(".")[0], *allowed}
        self._addresses: set[Address] = set()
        self._loopback = self._any_address = False
        for endpoint in endpoints:
            if not endpoint.unix:
                self._add(endpoint.host.lower())
        self._addresses.update(address for name in allowed if (address := _address(name)) is not None)

    def guard(self, route: Route) -> Route:
        """Return `route` with a handler that first refuses requests that must not be answered."""
        handler = route.handler

        def guarded(request: Request) -> Response | asyncio.Future[Response]:
            return self.refusal(request) or handler(request)

        return replace(route, handler=guarded)

    def refusal(self, request: Request) -> Response | None:
        """Return the answer that refuses `request`, or `None` if it is allowed."""
        reason = self.reason(request.peer, request.method, request.headers)
        return text_error(403, reason) if reason else None

    def reason(self, peer: str, method: str, headers: Mapping[str, str]) -> str:
        """Return why a request is refused, and what to do; "" if it is allowed. Header names are lower case."""
        if not peer:  # a unix socket
            return ""
        host = headers.get("host", "")
        if host and not self._is_ours(host):
            shown = _shown(host)
            self._report("host", host=shown)
            return (
                f"{shown!r} is not a name of this endpoint. To allow it, add the name without its port to "
                f"`allowed_hosts` of {self._setting}"
            )
        if method not in _SAFE_METHODS and is_cross_origin(headers):
            origin = _shown(headers.get("origin", "another site"))
            self._report("origin", origin=origin)
            return f"a web page of {origin} may not send to this endpoint"
        return ""

    def _add(self, host: str) -> None:
        """Allow the names and addresses by which clients reach an endpoint that listens on `host`."""
        address = _address(host)
        if not host or (address is not None and address.is_unspecified):
            self._any_address = True
        elif address is None:
            self._names.add(host)
            self._loopback = self._loopback or host == "localhost"
            self._any_address = self._any_address or host != "localhost"  # the name may resolve to any address
        else:
            self._addresses.add(address)
            self._loopback = self._loopback or address.is_loopback

    def _is_ours(self, header: str) -> bool:
        if self._any:
            return True
        match = _HOST.fullmatch(header.strip().lower())
        if match is None:
            return False
        name = match[1].strip("[]").rstrip(".")
        address = _address(name)
        if address is None:
            return name in self._names
        return self._any_address or address in self._addresses or (self._loopback and address.is_loopback)

    def _report(self, why: str, **fields: str) -> None:
        if requests := self._limit.take():
            self._log.warning(REFUSED, why=why, requests=requests, setting=self._setting, **fields)


def is_cross_origin(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sent the request for a page of another origin. Header names are lower case."""
    if headers.get("sec-fetch-site", "") == "cross-site":
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    authority = origin.partition("://")[2].lower()  # an opaque origin is `null` and has no authority
    return not authority or authority != headers.get("host", "").lower()


def _address(host: str) -> Address | None:
    """Return `host` as an IP address, or None; an IPv4 address mapped into IPv6 becomes the IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
