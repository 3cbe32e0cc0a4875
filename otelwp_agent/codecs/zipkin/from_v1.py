"""Convert Zipkin's v1 JSON to serialized OTLP.

A v1 span has no kind and no endpoint: *core annotations* (`cs`, `cr`, `sr`, `ss`, `ms`, `mr`) contain the kind and the
times, and each annotation contains the endpoint that wrote it. A span written by both client and server is split into
two with the same ids, as Zipkin itself does (zipkin2.v1.V1SpanConverter).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.codecs.zipkin.from_json import spans_of
from otelwp_agent.codecs.zipkin.receiving import Decoder
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Generator

    Span = dict[str, Any]

_CORE = {
    "cs": ("CLIENT", 0),
    "cr": ("CLIENT", 1),
    "sr": ("SERVER", 0),
    "ss": ("SERVER", 1),
    "ms": ("PRODUCER", 0),
    "mr": ("CONSUMER", 0),
}
"""By core annotation: the kind, and whether it begins (0) or ends (1) the span."""

_ADDRESSES = {"sa": ("CLIENT", "PRODUCER"), "ca": ("SERVER",), "ma": ("PRODUCER", "CONSUMER")}
"""By binary annotation with the peer's endpoint: the kinds of the spans that it applies to."""

_LOCAL_COMPONENT = "lc"


def decoding(
    data: bytes, now: int, *, parse_string_tags: bool = False, max_items: int = DEFAULT_MAX_ITEMS
) -> Generator[None, None, Decoder]:
    """Do what `from_json.decoding` does."""
    decoder = Decoder(now, parse_string_tags=parse_string_tags)
    spans = spans_of(data, decoder.traces, max_items)
    yield from decoder.decoding(side for span in spans for side in (_converted(span) if type(span) is dict else [span]))
    return decoder


def _converted(span: Span) -> list[Span]:
    """Convert a v1 span to v2 spans: two if both client and server wrote it."""
    annotations = [each for each in _list(span.get("annotations")) if type(each) is dict]
    sides = _sides(span, annotations)
    for field in ("timestamp", "duration"):
        if span.get(field):
            sides[0][field] = span[field]
    for each in annotations:
        if _core(each) is None:
            _side_of(sides, each)["annotations"].append(each)
    for each in _list(span.get("binaryAnnotations")):
        if type(each) is dict:
            _add_binary(sides, each)
    for side in sides:
        if not side.get("localEndpoint") and side["tags"].get(_LOCAL_COMPONENT):
            side["localEndpoint"] = {"serviceName": side["tags"][_LOCAL_COMPONENT]}
    return sides


def _add_binary(sides: list[Span], annotation: Span) -> None:
    """Add a binary annotation, which is either the peer's endpoint or a tag."""
    key, value, endpoint = (annotation.get(field) for field in ("key", "value", "endpoint"))
    kinds = _ADDRESSES.get(key) if type(key) is str else None
    if kinds and value in (True, "true", "1", "\1"):
        side = next((side for side in sides if side.get("kind") in kinds), sides[0])
        side["remoteEndpoint"] = endpoint
    elif key != _LOCAL_COMPONENT or value:
        side = _side_of(sides, annotation)
        side["tags"][key if type(key) is str else str(key)] = value
        if not side.get("localEndpoint") and endpoint:
            side["localEndpoint"] = endpoint


def _sides(span: Span, annotations: list[Span]) -> list[Span]:
    """Return a v2 span for each kind among the core annotations, the client's first.

    Returns one span without a kind if there are no core annotations.
    """
    common = {field: span.get(field) for field in ("traceId", "id", "parentId", "name")}
    if span.get("debug") is True:
        common["debug"] = True
    found: dict[str, list[Span | None]] = {}
    for each in annotations:
        core = _core(each)
        if core is not None:
            found.setdefault(core[0], [None, None])[core[1]] = each
    sides = [
        _side(common, kind, *found[kind]) for kind in ("CLIENT", "SERVER", "PRODUCER", "CONSUMER") if kind in found
    ]
    if len(sides) > 1 and sides[1]["kind"] == "SERVER":
        sides[1]["shared"] = True
    if not sides:
        endpoint = next((each["endpoint"] for each in annotations if each.get("endpoint")), None)
        sides.append({**common, "annotations": [], "tags": {}, "localEndpoint": endpoint})
    return sides


def _side(common: Span, kind: str, begin: Span | None, end: Span | None) -> Span:
    """Return a v2 span of one kind from its first and last core annotation; one of them may be missing."""
    core = begin or end or {}
    side = {**common, "kind": kind, "annotations": [], "tags": {}, "localEndpoint": core.get("endpoint")}
    side["timestamp"] = core.get("timestamp")
    if begin is not None and end is not None:
        side["duration"] = _difference(end.get("timestamp"), begin.get("timestamp"))
    return side


def _core(annotation: Span) -> tuple[str, int] | None:
    value = annotation.get("value")
    return _CORE.get(value) if type(value) is str else None


def _side_of(sides: list[Span], annotation: Span) -> Span:
    """Return the side whose endpoint wrote an annotation; the first side if none did."""
    if len(sides) == 1:
        return sides[0]
    name = _service(annotation.get("endpoint"))
    return next((side for side in sides if name and _service(side.get("localEndpoint")) == name), sides[0])


def _service(endpoint: Any) -> Any:  # noqa: ANN401 - any JSON value
    return endpoint.get("serviceName") if type(endpoint) is dict else None


def _difference(end: Any, begin: Any) -> int | float | None:  # noqa: ANN401 - any JSON value
    numbers = (int, float)
    return end - begin if type(end) in numbers and type(begin) in numbers else None


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    return value if type(value) is list else []
