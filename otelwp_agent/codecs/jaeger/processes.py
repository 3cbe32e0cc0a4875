"""Processes in Jaeger's JSON as services and resources; the same ones come again and again, and are remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.codecs.jaeger.receiving import resource_of
from otelwp_agent.codecs.jaeger.tags import pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    Process = tuple[str, bytes]
    """The service's name, and a serialized resource."""

MAX_PROCESSES = 256
MAX_SIZE = 2048
"""Processes that are remembered, and the largest of them in bytes."""

_known: dict[bytes, Process] = {}
"""Processes as they were read, by their JSON; none that something was mended in."""


def read(process: Any, mend: Callable[[str], None]) -> Process:  # noqa: ANN401 - whatever stands in the JSON
    """Return what a process is."""
    try:
        identity = orjson.dumps(process)
    except orjson.JSONEncodeError:
        identity = b""
    known = _known.get(identity)
    if known is not None:
        return known
    mended: list[str] = []
    known = _read(process, mended.append)
    for kind in mended:
        mend(kind)
    if identity and not mended and len(identity) <= MAX_SIZE:
        if len(_known) >= MAX_PROCESSES:
            _known.clear()
        _known[identity] = known
    return known


def _read(process: Any, mend: Callable[[str], None]) -> Process:  # noqa: ANN401 - whatever stands in the JSON
    if type(process) is not dict:
        if process is not None and process != []:
            mend("process_dropped")
        return "", b""
    name = process.get("serviceName")
    if type(name) is not str:
        mend("service_name")
        name = "" if name is None else str(name)
    return name, resource_of(name, pairs(process.get("tags"), mend))
