"""Convert serialized OTLP to Zipkin v2 protobuf: a serialized `ListOfSpans`."""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING

from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.codecs.zipkin.encoding import Encoder, ScopeContext
from otelwp_agent.codecs.zipkin.fragments import proto_pair, proto_tag
from otelwp_agent.codecs.zipkin.records import KINDS
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.codecs.zipkin.endpoints import Endpoint
    from otelwp_agent.codecs.zipkin.records import Record

_ENUM = {"CLIENT": 1, "SERVER": 2, "PRODUCER": 3, "CONSUMER": 4}
"""Zipkin's numbers of its kinds (zipkin.proto, Span.Kind)."""

_time = struct.Struct("<BQ").pack
_timestamp = struct.Struct("<BQB").pack


class ProtoEncoder(Encoder[bytes]):
    """Writes a `ListOfSpans`."""

    nothing = b""

    def __init__(self, default_service_name: str) -> None:
        """Use a default name for services without a name."""
        super().__init__(default_service_name, proto_tag, proto_pair)

    def _write(  # noqa: PLR0913, PLR0917 - a record: each argument is a field
        self,
        trace_id: bytes,
        span_id: bytes,
        parent: bytes,
        name: bytes,
        timestamp: int,
        duration: int,
        opened: bytes,
        written: bytes,
    ) -> bytes:
        head = b"\x0a\x10%b\x12\x08%b\x1a\x08%b" if parent else b"\x0a\x10%b%b\x1a\x08%b"
        span = b"%b%b%b%b%b%b" % (
            head % (trace_id, parent, span_id),
            name,
            _timestamp(0x31, timestamp, 0x38),
            VARINTS[duration] if duration < SMALL else varint(duration),
            opened,
            written,
        )
        return prefixed(b"\x0a", span)

    def _written(self, _context: ScopeContext[bytes], fragments: Sequence[bytes], remote: bytes) -> bytes:
        return b"".join(fragments) + remote

    def _from_record(self, made: Record) -> bytes:
        return prefixed(b"\x0a", _message(made).SerializeToString())

    def _document(self, spans: list[bytes]) -> bytes:
        return b"".join(spans)

    def _fill(self, context: ScopeContext[bytes]) -> None:
        rest = prefixed(b"\x42", prefixed(b"\x0a", context.service.encode()))
        rest += b"".join([proto_tag(key, value) for key, value in context.base.items()])
        for kind in KINDS:
            context.opened.append(b"\x20%c%b" % (_ENUM[kind], rest) if kind else rest)

    def _endpoint(self, endpoint: Endpoint) -> bytes:
        return prefixed(b"\x4a", _endpoint(endpoint).SerializeToString())

    def _annotations(self, notes: list[tuple[int, str]]) -> bytes:
        return b"".join([prefixed(b"\x52", _time(0x09, at) + prefixed(b"\x12", value.encode())) for at, value in notes])

    def _name(self, raw: bytes) -> bytes:
        return prefixed(b"\x2a", raw.decode(errors="replace").encode())


def _endpoint(endpoint: Endpoint) -> pb.Endpoint:
    message = pb.Endpoint(service_name=endpoint.get("serviceName", "").encode(), port=endpoint.get("port", 0))
    if "ipv4" in endpoint:
        message.ipv4 = ipaddress.IPv4Address(endpoint["ipv4"]).packed
    if "ipv6" in endpoint:
        message.ipv6 = ipaddress.IPv6Address(endpoint["ipv6"]).packed
    return message


def _message(record: Record) -> pb.Span:
    """Return a record as a message."""
    message = pb.Span(
        trace_id=bytes.fromhex(record["traceId"]),
        parent_id=bytes.fromhex(record.get("parentId", "")),
        id=bytes.fromhex(record["id"]),
        kind=_ENUM.get(record.get("kind", ""), 0),
        name=record["name"].encode(),
        timestamp=record.get("timestamp", 0),
        duration=record.get("duration", 0),
        local_endpoint=_endpoint(record["localEndpoint"]),
        debug=record.get("debug", False),
        shared=record.get("shared", False),
    )
    if "remoteEndpoint" in record:
        message.remote_endpoint.CopyFrom(_endpoint(record["remoteEndpoint"]))
    for annotation in record.get("annotations", ()):
        message.annotations.add(timestamp=annotation["timestamp"], value=annotation["value"].encode())
    for key, value in record.get("tags", {}).items():
        message.tags.add(key=key.encode(), value=value.encode())
    return message
