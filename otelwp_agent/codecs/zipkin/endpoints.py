"""Convert Zipkin's `remoteEndpoint` and `localEndpoint` to attributes and back.

The ranking is the specification's ("OpenTelemetry to Zipkin Transformation", Remote endpoint). For CLIENT and PRODUCER,
`server.address` and similar attributes describe the peer; for SERVER and CONSUMER they describe the span's own host.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    Endpoint = dict[str, Any]
    """`serviceName`, `ipv4`, `ipv6` (text) and `port`; unknown ones are missing."""

PEER_SERVICE = "peer.service"
PEER = ("network.peer.address", "network.peer.port")
LOCAL = ("network.local.address", "network.local.port")

_PORTS = {
    "network.peer.address": "network.peer.port",
    "server.socket.address": "server.socket.port",
    "net.sock.peer.addr": "net.sock.peer.port",
}
"""By attribute with the address of a socket: the attribute with its port."""

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
"""Attributes that name the peer, the best first, by OTLP's span kind (unspecified, internal, server, …)."""


def peer_keys(keys: Container[str], kind: int) -> list[str]:
    """Return those of `keys` that describe the peer of a span of this kind, the one with its name first."""
    best = next((key for key in RANKING[kind] if key in keys), None)
    if best is None:
        return []
    address = best if best in _PORTS else PEER[0]
    wanted = dict.fromkeys((best, address, _PORTS[address]))
    return [key for key in wanted if key in keys]


def remote(values: Mapping[str, str]) -> Endpoint:
    """Return the endpoint from the values of such keys; empty if they contain none."""
    first = next(iter(values))
    address_key = first if first in _PORTS else PEER[0]
    found = address(values.get(address_key, ""), values.get(_PORTS[address_key], ""))
    if first not in _PORTS:
        return {"serviceName": values[first], **found} if values[first] else found
    if not _is_ip(found) and values[first]:
        return {"serviceName": values[first], **found}
    return found


def address(host: str, port: str) -> Endpoint:
    """Return an endpoint with `ipv4` or `ipv6` if `host` is an address, and with `port` if that is valid."""
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
