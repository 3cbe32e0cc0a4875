"""Convert Zipkin's v2 protobuf (`ListOfSpans`) to serialized OTLP."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.receiving import Decoder
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, refuse_too_many

if TYPE_CHECKING:
    from collections.abc import Generator

_SPANS = frozenset({pb.ListOfSpans.DESCRIPTOR.fields_by_name["spans"].full_name})
_KINDS = {1: "CLIENT", 2: "SERVER", 3: "PRODUCER", 4: "CONSUMER"}


def decoding(
    data: bytes, now: int, *, parse_string_tags: bool = False, max_items: int = DEFAULT_MAX_ITEMS
) -> Generator[None, None, Decoder]:
    """Do what `from_json.decoding` does."""
    refuse_too_many(data, pb.ListOfSpans, max_items, items=_SPANS)
    try:
        spans = pb.ListOfSpans.FromString(data).spans
    except DecodeError as error:
        message = "the body is not a serialized zipkin.proto3.ListOfSpans"
        raise MalformedError(message) from error
    decoder = Decoder(now, parse_string_tags=parse_string_tags)
    yield from decoder.decoding(map(_span, spans))
    return decoder


def _span(span: pb.Span) -> dict[str, Any]:
    """Return a span as v2 JSON has it; one without ids, which is left out, as these alone."""
    if not (span.trace_id and span.id):
        return {"traceId": span.trace_id.hex(), "id": span.id.hex()}
    out: dict[str, Any] = {
        "traceId": span.trace_id.hex(),
        "id": span.id.hex(),
        "parentId": span.parent_id.hex(),
        "name": span.name.decode(errors="replace"),
        "timestamp": span.timestamp,
        "tags": {tag.key.decode(errors="replace"): tag.value.decode(errors="replace") for tag in span.tags},
    }
    if span.kind:
        out["kind"] = _KINDS.get(span.kind, span.kind)
    if span.duration:
        out["duration"] = span.duration
    if span.HasField("local_endpoint"):
        out["localEndpoint"] = _endpoint(span.local_endpoint)
    if span.HasField("remote_endpoint"):
        out["remoteEndpoint"] = _endpoint(span.remote_endpoint)
    if span.annotations:
        out["annotations"] = [
            {"timestamp": each.timestamp, "value": each.value.decode(errors="replace")} for each in span.annotations
        ]
    if span.debug:
        out["debug"] = True
    if span.shared:
        out["shared"] = True
    return out


def _endpoint(endpoint: pb.Endpoint) -> dict[str, Any]:
    out: dict[str, Any] = {"serviceName": endpoint.service_name.decode(errors="replace"), "port": endpoint.port}
    for field, raw in (("ipv4", endpoint.ipv4), ("ipv6", endpoint.ipv6)):
        if raw:
            out[field] = str(ipaddress.ip_address(raw)) if len(raw) in {4, 16} else raw.hex()
    return out
