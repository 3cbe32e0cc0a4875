"""Find the traces and spans in a JSON document: Jaeger's own `{"data": […]}`, and the variants of other senders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    OnRepair = Callable[[str], None]
    Trouble = Callable[[str, str], None]
    """Called with a position in the document, and the problem there."""

_SPAN_KEYS = frozenset({"spanID", "spanId", "operationName"})


def traces_in(document: Any, repaired: OnRepair, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    """Yield every trace, or the object used as one, with its position."""
    if type(document) is dict and "data" in document:
        yield from _elements(document["data"], "data", repaired, trouble)
    else:
        if document:
            repaired("no_data")
        yield from _elements(document, "the body", repaired, trouble)


def spans_of(trace: dict[str, Any], repaired: OnRepair) -> list[Any]:
    """Return the spans of a trace."""
    spans = trace["spans"]
    if type(spans) is dict:
        repaired("map_for_list")
        return [spans] if _is_span(spans) else list(spans.values())
    return spans if type(spans) is list else []


def _elements(value: Any, place: str, repaired: OnRepair, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    if type(value) is list:
        bare = []
        for index, each in enumerate(value):
            if type(each) is dict and "spans" in each:
                yield f"{place}[{index}]", each
            elif _is_span(each):
                bare.append(each)
            else:
                yield from _element(each, f"{place}[{index}]", repaired, trouble)
        if bare:
            repaired("span_list")
            yield place, {"spans": bare}
    elif value is not None:
        yield from _element(value, place, repaired, trouble)


def _element(value: Any, place: str, repaired: OnRepair, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    if type(value) is dict and "spans" in value:
        yield place, value
    elif _is_span(value):
        repaired("bare_span")
        yield place, {"spans": [value]}
    elif type(value) is list and value:
        repaired("span_list")
        yield place, {"spans": value}
    elif value:
        trouble(place, "is neither a trace (an object with `spans`) nor a span (with `spanID`)")


def _is_span(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return type(value) is dict and "spans" not in value and not _SPAN_KEYS.isdisjoint(value)
