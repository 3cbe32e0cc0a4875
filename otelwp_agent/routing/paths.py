"""The paths that conditions can name, such as `resource.attributes["service.name"]` or `span.status.code`.

Names are those of the Collector's transformation language. In a rule of the context `resource`, `attributes["x"]` means
`resource.attributes["x"]`; the same holds for the other contexts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from otelwp_agent.routing.facts import Depth, FactReader, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.model import projection_pb2 as pb
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.facts import Facts, Value

CONTEXTS = ("request", "resource", "scope", "span", "log", "metric")
"""Contexts of rules, and the prefixes of paths."""
_SCOPE = "instrumentation_scope"
"""The Collector's older name of `scope`."""

SPAN_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_CODES = ("UNSET", "OK", "ERROR")
_SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

ENUMS: dict[str, int] = {
    **{f"SPAN_KIND_{name}": number for number, name in enumerate(SPAN_KINDS)},
    **{f"STATUS_CODE_{name}": number for number, name in enumerate(STATUS_CODES)},
    "SEVERITY_NUMBER_UNSPECIFIED": 0,
    **{
        f"SEVERITY_NUMBER_{name}{step + 1 if step else ''}": 4 * place + step + 1
        for place, name in enumerate(_SEVERITIES)
        for step in range(4)
    },
}
"""Names of numbers, as in trace.proto and logs.proto."""


class UnknownPathError(Exception):
    """There is no such path; the message says which there are."""


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _span(facts: Facts) -> pb.RoutedSpan:
    return cast("pb.RoutedSpan", facts.item)


def _log(facts: Facts) -> pb.LogAttributes:
    return cast("pb.LogAttributes", facts.item)


def _metric(facts: Facts) -> pb.MetricAttributes:
    return cast("pb.MetricAttributes", facts.item)


def _milliseconds(facts: Facts) -> float:
    span = _span(facts)
    return max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def _few(path: str, depth: Depth, read: Callable[[Facts], Value]) -> FactReader:
    """Return a reader of a fact that has few different values."""
    return FactReader(path, depth, read, raw=read)


_FIELDS: Mapping[str, FactReader] = {
    reader.path: reader
    for reader in (
        _few("request.tenant", Depth.REQUEST, lambda facts: facts.origin.tenant),
        _few("request.receiver", Depth.REQUEST, lambda facts: facts.origin.receiver),
        _few("scope.name", Depth.SCOPE, lambda facts: _text(facts.scope.name)),
        _few("scope.version", Depth.SCOPE, lambda facts: _text(facts.scope.version)),
        _few("span.name", Depth.ITEM, lambda facts: _text(_span(facts).name)),
        _few("span.kind", Depth.ITEM, lambda facts: _span(facts).kind),
        _few("span.status.code", Depth.ITEM, lambda facts: _span(facts).status.code),
        _few("span.root", Depth.ITEM, lambda facts: not _span(facts).parent_span_id),
        FactReader("span.duration_ms", Depth.ITEM, _milliseconds),
        _few("log.severity_number", Depth.ITEM, lambda facts: _log(facts).severity_number),
        _few("log.severity_text", Depth.ITEM, lambda facts: _text(_log(facts).severity_text)),
        FactReader("log.body", Depth.ITEM, lambda facts: value_of(_log(facts).body)),
        _few("metric.name", Depth.ITEM, lambda facts: _text(_metric(facts).name)),
    )
}
_ATTRIBUTES: Mapping[str, tuple[Depth, Callable[[Facts], Mapping[bytes, bytes]]]] = {
    "resource": (Depth.RESOURCE, lambda facts: facts.resource),
    "scope": (Depth.SCOPE, lambda facts: facts.scope_attributes),
    "span": (Depth.ITEM, lambda facts: facts.attributes),
    "log": (Depth.ITEM, lambda facts: facts.attributes),
}


def reader_of(path: str, key: str | None, context: str, signal: Signal) -> FactReader:
    """Return the reader of `path`, with `[key]` after it if there is one; raise `UnknownPathError` if there is none."""
    full = _full(path, context)
    prefix = full.partition(".")[0]
    own = {"traces": "span", "logs": "log", "metrics": "metric"}[signal.value]
    if prefix in {"span", "log", "metric"} and prefix != own:
        message = f"`{full}` does not exist in {signal.value}: there it begins with `{own}.`"
        raise UnknownPathError(message)
    if key is None:
        if full in _FIELDS:
            return _FIELDS[full]
    elif full == "request":
        return _header(key)
    elif full.endswith(".attributes") and prefix in _ATTRIBUTES:
        return _attribute(prefix, key)
    raise UnknownPathError(_unknown(path, own))


def _full(path: str, context: str) -> str:
    """Return the path with its context in front."""
    if path == _SCOPE or path.startswith(_SCOPE + "."):
        return "scope" + path.removeprefix(_SCOPE)
    return path if path.partition(".")[0] in CONTEXTS else f"{context}.{path}"


@lru_cache(maxsize=4096)  # rules that read the same fact share its reader
def _header(name: str) -> FactReader:
    lower = name.lower()
    return _few(f'request["{name}"]', Depth.REQUEST, lambda facts: facts.origin.headers.get(lower))


@lru_cache(maxsize=4096)
def _attribute(prefix: str, key: str) -> FactReader:
    depth, attributes = _ATTRIBUTES[prefix]
    raw = key.encode()
    return FactReader(
        f'{prefix}.attributes["{key}"]',
        depth,
        lambda facts: value_of(attributes(facts).get(raw)),
        raw,
        lambda facts: attributes(facts).get(raw),
    )


def _unknown(path: str, own: str) -> str:
    known = [name for name in _FIELDS if name.partition(".")[0] in {"request", "scope", own}]
    known += ['request["header"]', *(f'{prefix}.attributes["key"]' for prefix in ("resource", "scope", own))]
    if own == "metric":
        known.pop()  # the attributes of its points are not read
    return f"`{path}` is unknown: the paths are {', '.join(f'`{name}`' for name in sorted(known))}"
