"""Convert Zipkin's v2 JSON to serialized OTLP: a list of spans, or a similar document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.codecs.lenient_json import load
from otelwp_agent.codecs.zipkin.receiving import Decoder
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, too_many
from otelwp_agent.model.json_slices import Sliced

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from otelwp_agent.codecs.zipkin.assembly import Assembly


def decoding(
    data: bytes, now: int, *, parse_string_tags: bool = False, max_items: int = DEFAULT_MAX_ITEMS
) -> Generator[None, None, Decoder]:
    """Decode in steps of a few milliseconds, and return the decoder in the end.

    `now` (nanoseconds) is for spans without a time. Raises `MalformedError`, or `TooLargeError` for more than
    `max_items` spans.
    """
    decoder = Decoder(now, parse_string_tags=parse_string_tags)
    yield from decoder.decoding(spans_of(data, decoder.traces, max_items))
    return decoder


def spans_of(data: bytes, traces: Assembly, max_items: int) -> Iterator[Any]:
    """Yield the spans of a body; those of a large one are read as they are needed.

    Raises `MalformedError`, and `TooLargeError` for more than `max_items` spans.
    """
    document = load(data, traces.repaired, max_items, "outermost")
    left = max_items
    for part in document.chunks() if type(document) is Sliced else (document,):
        spans = spans_in(part, traces)
        left -= len(spans)
        if left < 0:
            raise too_many(max_items)
        yield from spans


def spans_in(document: Any, traces: Assembly) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Return the spans: those in a list, in the lists of a list (as Zipkin's API answers), or the one there is."""
    if type(document) is dict and "traceId" in document:
        traces.repaired("bare_span")
        return [document]
    if type(document) is not list:
        message = "the body must be a list of spans"
        raise MalformedError(message)
    if any(type(each) is list for each in document):
        traces.repaired("nested_lists")
        return [span for each in document for span in (each if type(each) is list else [each])]
    return document
