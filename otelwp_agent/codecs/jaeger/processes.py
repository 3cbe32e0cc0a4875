"""Convert processes in Jaeger's JSON to services and resources, with a cache, because they are usually repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs.jaeger.receiving import resource_of
from otelwp_agent.codecs.jaeger.tags import pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    Process = tuple[str, bytes]
    """Name of the service, and a serialized resource."""

MAX_PROCESSES = 256
MAX_SIZE = 2048
"""Maximum number of cached processes, and maximum size of each in bytes."""

_known: dict[bytes, Process] = {}
"""Converted processes by their JSON, except those with repaired problems."""


def read(process: Any, repaired: Callable[[str], None]) -> Process:  # noqa: ANN401 - any JSON value
    """Return the service and resource of a process; call `repaired` with the kind of each repair."""
    try:
        identity = orjson.dumps(process)
    except orjson.JSONEncodeError:
        identity = b""
    known = _known.get(identity)
    if known is not None:
        return known
    repairs: list[str] = []
    known = _read(process, repairs.append)
    for kind in repairs:
        repaired(kind)
    if identity and not repairs and len(identity) <= MAX_SIZE:
        if len(_known) >= MAX_PROCESSES:
            _known.clear()
        _known[identity] = known
    return known


def _read(process: Any, repaired: Callable[[str], None]) -> Process:  # noqa: ANN401 - any JSON value
    if type(process) is not dict:
        if process is not None and process != []:
            repaired("process_dropped")
        return "", b""
    name = process.get("serviceName")
    if type(name) is not str:
        repaired("service_name")
        name = "" if name is None else str(name)
    return name, resource_of(name, pairs(process.get("tags"), repaired))
