"""Who a span talked to: Zipkin's `remoteEndpoint` and `localEndpoint` ⇄ attributes.

The ranking is the specification's ("OpenTelemetry to Zipkin Transformation", Remote endpoint). It names the other side
of a CLIENT or PRODUCER; to a SERVER or CONSUMER, `server.address` and its like are the span's own side.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    Endpoint = dict[str, Any]
    """`serviceName`, `ipv4`, `ipv6` (text) and `port`, those that are known."""

PEER_SERVICE = "peer.service"
PEER = ("network.peer.address", "network.peer.port")
LOCAL = ("network.local.address", "network.local.port")

_PORTS = {
    "network.peer.address": "network.peer.port",
    "server.socket.address": "server.socket.port",
    "net.sock.peer.addr": "net.sock.peer.port",
}
"""The attributes that hold a socket's address, and where its port stands."""

_OUTGOING = (
    PEER_SERVICE,
    "server.address",
    "net.peer.name",
    "network.peer.address",
    "server.socket.domain",
    "server.socket.address",
    "net.sock.peer.name",
    "net.sock.peer.addr",
    "peer.hostname",
    "peer.address",
    "db.name",
)
_OTHER = (PEER_SERVICE, "network.peer.address", "net.sock.peer.addr")

RANKING = (_OTHER, _OTHER, _OTHER, _OUTGOING, _OUTGOING, _OTHER)
"""Attributes that name the other side, the best first, by OTLP's span kind (unspecified, internal, server, …)."""


def telling(keys: Container[str], kind: int) -> list[str]:
    """Return the keys among `keys` that tell the other side of a span of this kind, the one that names it first."""
    best = next((key for key in RANKING[kind] if key in keys), None)
    if best is None:
        return []
    address = best if best in _PORTS else PEER[0]
    wanted = dict.fromkeys((best, address, _PORTS[address]))
    return [key for key in wanted if key in keys]


def remote(told: Mapping[str, str]) -> Endpoint:
    """Return the endpoint that the values of such keys make; empty if they make none."""
    first = next(iter(told))
    address_key = first if first in _PORTS else PEER[0]
    found = address(told.get(address_key, ""), told.get(_PORTS[address_key], ""))
    if first not in _PORTS:
        return {"serviceName": told[first], **found} if told[first] else found
    if not _is_ip(found) and told[first]:
        return {"serviceName": told[first], **found}
    return found


def address(host: str, port: str) -> Endpoint:
    """Return an endpoint with `ipv4` or `ipv6` if `host` is one, and `port` if it is one."""
    endpoint: Endpoint = {}
    if host:
        try:
            ip = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return endpoint
        endpoint[f"ipv{ip.version}"] = str(ip)
    if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16:
        endpoint["port"] = int(port)
    return endpoint


def _is_ip(endpoint: Endpoint) -> bool:
    return "ipv4" in endpoint or "ipv6" in endpoint
