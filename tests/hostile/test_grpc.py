"""Attacks on gRPC: messages that never end, messages that expand, floods of frames, many connections."""

import struct
import time

import pytest

from tests.hostile import bodies, wire
from tests.hostile.attack import prepared
from tests.hostile.bodies import LARGEST, MIB, gzip
from tests.hostile.test_connections import stalled_handshakes
from tests.kit import http2

OTLP = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
JAEGER = "/jaeger.api_v2.CollectorService/PostSpans"
SECONDS = 2.0
CONTINUATION = 9


def unfinished(connections, streams, component="otlp", path=OTLP):
    """Return an attack: messages of 20 MiB that never end."""

    def attack(target):
        port = target.port(component, "grpc")
        made = [
            http2.Connection(port, path, size=19 * MIB, claim=LARGEST - 1, streams=streams) for _ in range(connections)
        ]
        http2.drive(made, SECONDS)
        wire.close(made)

    return attack


def message(make, component="otlp", path=OTLP, *, compressed=False):
    """Return an attack: one call with the result of `make` as message."""

    @prepared(make)
    def attack(target, body):
        extra = ((b"grpc-encoding", b"gzip"),) if compressed else ()
        port = target.port(component, "grpc")
        made = http2.Connection(port, path, size=body, claim=len(body), extra=extra, compressed=compressed, end=True)
        end = time.monotonic() + wire.PATIENCE
        while not made.statuses and time.monotonic() < end:
            http2.drive([made], 0.05)
        made.close()

    return attack


def frames(*parts, connections=1):
    """Return an attack: the preface, then these frames repeatedly, for `SECONDS`."""
    data = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) + b"".join(parts)

    def attack(target):
        wire.close(wire.flood(target.port("otlp", "grpc"), data, connections, SECONDS))

    return attack


def rapid_reset():
    block = http2.headers(OTLP)
    return b"".join(
        http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * number + 1, block)
        + http2.frame(http2.RST_STREAM, 0, 2 * number + 1, struct.pack(">I", 8))
        for number in range(50_000)
    )


def continuations():
    """Return a header block that 1 200 CONTINUATION frames do not end."""
    block = http2.headers(OTLP)
    more = http2.frame(CONTINUATION, 0, 1, (b"\x00\x03x-a\x7d" + b"b" * 125) * 124)
    return http2.frame(http2.HEADERS, 0, 1, block) + more * 1200


def header_table_bomb():
    """Return 1 000 calls whose headers refer 4 000 times to one value of 3 900 bytes (RFC 7541, indexed fields)."""
    value = b"a" * 3900
    size = len(value) - 127
    entry = b"\x40\x03x-a" + bytes((0x7F, size & 0x7F | 0x80, size >> 7)) + value
    first = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(OTLP) + entry)
    again = http2.headers(OTLP) + b"\xbe" * 4000
    return first + b"".join(
        http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * number + 3, again) for number in range(1000)
    )


ATTACKS = {
    "60_unfinished_messages": unfinished(60, 1),
    "60_unfinished_messages_on_one_connection": unfinished(1, 60),
    "60_unfinished_messages_jaeger": unfinished(60, 1, "jaeger", JAEGER),
    "empty_spans": message(bodies.empty_spans),
    "empty_scopes": message(bodies.empty_scopes),
    "empty_resources": message(bodies.empty_resources),
    "full_spans": message(bodies.valid_spans, "otlp/full"),
    "full_groups_in_a_span": message(bodies.groups_in_a_span, "otlp/full"),
    "empty_spans_gzip": message(lambda: gzip(bodies.empty_spans(), 1), compressed=True),
    "empty_spans_jaeger": message(bodies.jaeger_spans, "jaeger", JAEGER),
    "gzip_bomb": message(bodies.gzip_bomb, compressed=True),
    "empty_gzip_members": message(lambda: bodies.empty_members(0), compressed=True),
    "pings": frames(http2.frame(http2.PING, 0, 0, bytes(8)) * 500_000),
    "settings": frames(http2.frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 500_000),
    "rapid_reset": frames(rapid_reset()),
    "continuations": frames(continuations()),
    "header_table_bomb": frames(header_table_bomb()),
    "500_stalled_handshakes": stalled_handshakes("grpc"),
    "1000_connections": frames(connections=1000),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_agent_withstands(name, survives):
    survives(name, ATTACKS[name])
