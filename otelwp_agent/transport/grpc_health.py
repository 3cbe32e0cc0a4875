"""The method `Check` of gRPC's health service (grpc/doc/health-checking.md).

It is answered without authentication, like `health_check` over HTTP: probes have no credentials. `Watch` is not
implemented, which its clients expect of a server: they then treat it as healthy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""`HealthCheckResponse{status: SERVING}`."""
NOT_SERVING = b"\x08\x02"

_SERVICE = 0x0A
_LONG = 0x80


def service_of(message: bytes) -> str:
    """Return the service in a `HealthCheckRequest`, an empty string for the whole server; raise `MalformedError`."""
    if not message:
        return ""
    if len(message) < 2 or message[0] != _SERVICE or message[1] >= _LONG or len(message) != 2 + message[1]:  # noqa: PLR2004
        raise MalformedError("this is not a HealthCheckRequest with a service of less than 128 bytes")
    return message[2:].decode("utf-8", "replace")


def services_of(methods: Iterable[str]) -> frozenset[str]:
    """Return the names of the services with these methods, and an empty string for the whole server."""
    return frozenset({"", *(method[1:].rpartition("/")[0] for method in methods)})
