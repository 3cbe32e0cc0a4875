"""Where in a JSON document the traces and spans are: Jaeger's own `{"data": […]}`, and what senders make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Mend = Callable[[str], None]
    Trouble = Callable[[str, str], None]
    """Takes a place, and what is wrong there."""

_SPAN_KEYS = frozenset({"spanID", "spanId", "operationName"})


def traces_in(document: Any, mend: Mend, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    """Yield every trace, or what stands for one, with its place."""
    if type(document) is dict and "data" in document:
        yield from _elements(document["data"], "data", mend, trouble)
    else:
        if document:
            mend("no_data")
        yield from _elements(document, "the body", mend, trouble)


def spans_of(trace: dict[str, Any], mend: Mend) -> list[Any]:
    """Return a trace's spans."""
    spans = trace["spans"]
    if type(spans) is dict:
        mend("map_for_list")
        return [spans] if _is_span(spans) else list(spans.values())
    return spans if type(spans) is list else []


def _elements(value: Any, place: str, mend: Mend, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    if type(value) is list:
        bare = []
        for index, each in enumerate(value):
            if type(each) is dict and "spans" in each:
                yield f"{place}[{index}]", each
            elif _is_span(each):
                bare.append(each)
            else:
                yield from _element(each, f"{place}[{index}]", mend, trouble)
        if bare:
            mend("span_list")
            yield place, {"spans": bare}
    elif value is not None:
        yield from _element(value, place, mend, trouble)


def _element(value: Any, place: str, mend: Mend, trouble: Trouble) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    if type(value) is dict and "spans" in value:
        yield place, value
    elif _is_span(value):
        mend("bare_span")
        yield place, {"spans": [value]}
    elif type(value) is list and value:
        mend("span_list")
        yield place, {"spans": value}
    elif value:
        trouble(place, "is neither a trace (an object with `spans`) nor a span (with `spanID`)")


def _is_span(value: Any) -> bool:  # noqa: ANN401 - whatever stands in the JSON
    return type(value) is dict and "spans" not in value and not _SPAN_KEYS.isdisjoint(value)
