"""Convert Zipkin's v2 JSON to serialized OTLP: a list of spans, or a similar document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.codecs.lenient_json import load
from otelwp_agent.codecs.zipkin.receiving import Decoder
from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Generator

    from otelwp_agent.codecs.zipkin.assembly import Assembly


def decoding(data: bytes, now: int, *, parse_string_tags: bool = False) -> Generator[None, None, Decoder]:
    """Decode in steps of a few milliseconds and return the decoder; raise `MalformedError`.

    `now` (nanoseconds) is the time of spans without a time.
    """
    decoder = Decoder(now, parse_string_tags=parse_string_tags)
    yield from decoder.decoding(spans_in(load(data, decoder.traces.mend), decoder.traces))
    return decoder


def spans_in(document: Any, traces: Assembly) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Return the spans of a list, of the lists in a list (the answer of Zipkin's API), or a single span."""
    if type(document) is dict and "traceId" in document:
        traces.mend("bare_span")
        return [document]
    if type(document) is not list:
        message = "the body must be a list of spans"
        raise MalformedError(message)
    if any(type(each) is list for each in document):
        traces.mend("nested_lists")
        return [span for each in document for span in (each if type(each) is list else [each])]
    return document
