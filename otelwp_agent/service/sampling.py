"""Handlers of the control socket for adaptive sampling: explain decisions, rescue dropped traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from otelwp_agent.errors import MalformedError
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.service.control import answer, json_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.service.control import Control
    from otelwp_agent.transport.http_messages import Request, Response

TOP, MOST = 20, 1000
"""Number of keys that are explained: default and maximum. Each takes about 50 µs, during which the event loop is
blocked."""
_TRACE_ID_BYTES = 16


def add_sampling(control: Control, graph: Callable[[], Graph]) -> None:
    """Serve `GET /sampling` and `POST /sampling/rescue` for the graph that `graph` returns."""

    def explained(request: Request) -> Response:
        query = parse_qs(request.query)
        try:
            top = min(max(int(query.get("top", [str(TOP)])[-1]), 0), MOST)
        except ValueError as error:
            raise MalformedError("`top` must be a number of keys") from error
        return answer({"samplers": [sampler.explain(top) for sampler in graph().providers(TraceSampler)]})

    def rescue(request: Request) -> Response:
        return answer(_rescue(graph().providers(TraceSampler), json_body(request)))

    control.add("/sampling", explained, ("GET",))
    control.add("/sampling/rescue", rescue)


def _rescue(samplers: Sequence[TraceSampler], data: Mapping[str, Any]) -> dict[str, Any]:
    """Rescue traces from every sampler that `data` selects; return the samplers with their numbers of spans."""
    meant = [
        sampler for sampler in samplers if all(data.get(name, is_) == is_ for name, is_ in sampler.identity.items())
    ]
    trace_id, since, where = _wanted(data)
    rescued = [
        {**sampler.identity, "spans": sampler.rescue(trace_id=trace_id, since=since, where=where)}
        for sampler in meant
        if sampler.records
    ]
    return {"samplers": [sampler.identity for sampler in samplers], "meant": len(meant), "rescued": rescued}


def _wanted(data: Mapping[str, Any]) -> tuple[bytes | None, float | None, dict[str, str] | None]:
    """Return the trace id, time and attributes of the requested traces; raise `MalformedError` if one is invalid."""
    trace_id: bytes | None = None
    if data.get("trace_id") is not None:
        try:
            trace_id = bytes.fromhex(data["trace_id"])
        except (TypeError, ValueError) as error:
            raise MalformedError("`trace_id` is not a hexadecimal number") from error
        if len(trace_id) != _TRACE_ID_BYTES:
            raise MalformedError("`trace_id` must have 32 hexadecimal digits")
    since = data.get("since")
    if since is not None and (isinstance(since, bool) or not isinstance(since, (int, float))):
        raise MalformedError("`since` must be a time in seconds since 1970")
    where = data.get("where") or None
    if where is not None and not (
        isinstance(where, dict) and all(isinstance(pattern, str) for pattern in where.values())
    ):
        raise MalformedError("`where` must be a map of attributes to patterns")
    if trace_id is None and since is None and where is None:
        raise MalformedError("give `trace_id`, `since` or `where`")
    return trace_id, since, where
