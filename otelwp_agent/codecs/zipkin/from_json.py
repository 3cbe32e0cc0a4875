"""Zipkin's v2 JSON → OTLP in wire form: a list of spans, and what comes close to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.codecs.lenient_json import load
from otelwp_agent.codecs.zipkin.receiving import Decoder
from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Generator

    from otelwp_agent.codecs.zipkin.assembly import Assembly


def decoding(data: bytes, now: int, *, parse_string_tags: bool = False) -> Generator[None, None, Decoder]:
    """Decode in steps of a few milliseconds, and return the decoder in the end; raises `MalformedError`.

    `now` (nanoseconds) is for spans without a time.
    """
    decoder = Decoder(now, parse_string_tags=parse_string_tags)
    yield from decoder.decoding(spans_in(load(data, decoder.traces.mend), decoder.traces))
    return decoder


def spans_in(document: Any, traces: Assembly) -> list[Any]:  # noqa: ANN401 - whatever stands in the JSON
    """Return the spans: those in a list, in the lists of a list (as Zipkin's API answers), or the one there is."""
    if type(document) is dict and "traceId" in document:
        traces.mend("bare_span")
        return [document]
    if type(document) is not list:
        message = "the body: a list of spans belongs here"
        raise MalformedError(message)
    if any(type(each) is list for each in document):
        traces.mend("nested_lists")
        return [span for each in document for span in (each if type(each) is list else [each])]
    return document
