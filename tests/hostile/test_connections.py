"""Connections that stall, that never end, or that send requests without reading responses; endless heads."""

import contextlib
import ssl
import time

import pytest

from tests.hostile import wire
from tests.hostile.attack import prepared
from tests.hostile.bodies import LARGEST, MIB

SECONDS = 2.0
"""Duration in seconds of an attack that does not end by itself."""
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
"""The first part of a TLS handshake: the record claims 512 bytes, but only 104 are sent."""


def unfinished(component, path, *, chunked=False, content_type=wire.PROTOBUF):
    """Return an attack: 60 bodies of 20 MiB that never end."""

    def body():
        if chunked:
            chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
            return wire.head(path, None, content_type) + chunk * (19 * MIB // 65_536)
        return wire.head(path, LARGEST, content_type) + bytes(19 * MIB)

    @prepared(body)
    def attack(target, data):
        wire.close(wire.flood(target.port(component), data, 60, SECONDS))

    return attack


def stalled_handshakes(transport):
    """Return an attack: 500 TLS handshakes that stop half-way, on a server that allows 10 connections."""

    def attack(target):
        sockets = wire.flood(target.port("otlp/tls", transport), CLIENT_HELLO, 500, SECONDS)
        left = wire.still_open(sockets)
        wire.close(sockets)
        assert left <= 10, f"{left} of 500 connections stay open, max_connections is 10"

    return attack


def tls_bytes_after_the_handshake(target):
    """Open connections that finish the handshake and send nothing: other clients must not wait for them."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sockets = []
    for _ in range(50):
        with contextlib.suppress(OSError):
            sockets.append(context.wrap_socket(wire.connect(target.port("otlp/tls"))))
    wire.close(sockets)


def trickle(begin, line):
    """Return an attack: one `line` every 100 ms, on a server with a limit of 1 s for heads and idle connections."""

    def attack(target):
        with wire.connect(target.port("zipkin")) as sock:
            sock.sendall(begin)
            sock.settimeout(0.1)
            end = time.monotonic() + 4.0
            while time.monotonic() < end:
                try:
                    sock.sendall(line)
                    sock.recv(1)
                except TimeoutError:
                    continue
                except OSError:
                    return
                return
        raise AssertionError("the server did not end the connection")

    return attack


def unread(port_of, path, connections=1, times=6000):
    """Return an attack: `times` requests at once on each connection, without reading the responses."""

    def attack(target):
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        wire.close(wire.flood(port_of(target), request * times, connections, SECONDS))

    return attack


def pipelined_posts(target):
    """Send 20 MiB of empty requests at once."""
    request = wire.head("/v1/traces", 0)
    wire.close(wire.flood(target.port(), request * (LARGEST // len(request)), 1, SECONDS))


def long_head(line, end=b""):
    """Return an attack: a head of 20 MiB that repeats one line."""

    def attack(target):
        data = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n" + line * (LARGEST // len(line)) + end
        wire.send(target.port(), data)

    return attack


def many_heads(target):
    """Send different heads of 60 kB on open connections: none of them may be cached."""
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(6000))[:60_000].rpartition(b"\r\n")[0]
    data = b"".join(
        b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nX-Number: %d\r\n%s\r\nContent-Length: 0\r\n\r\n" % (n, lines)
        for n in range(300)
    )
    wire.close(wire.flood(target.port(), data, 1, SECONDS))


def remembered_heads(target):
    """Send 20 000 different heads of 1 kB that may all be cached."""
    filler = "a" * 900
    data = b"".join(
        wire.head("/v1/traces", 0, wire.PROTOBUF, f"X-Number: {n}", f"X-Filler: {filler}") for n in range(20_000)
    )
    wire.close(wire.flood(target.port(), data, 1, SECONDS))


def connections(target):
    """Open 1 000 connections that send nothing useful."""
    wire.close(wire.flood(target.port(), b"P", 1000, SECONDS))


ATTACKS = {
    "60_unfinished_bodies_otlp": unfinished("otlp", "/v1/traces"),
    "60_unfinished_bodies_otlp_json": unfinished("otlp", "/v1/traces", content_type=wire.JSON),
    "60_unfinished_bodies_chunked": unfinished("otlp", "/v1/traces", chunked=True),
    "60_unfinished_bodies_zipkin": unfinished("zipkin", "/api/v2/spans", content_type=wire.JSON),
    "60_unfinished_bodies_jaeger": unfinished("jaeger", "/api/traces", content_type=wire.THRIFT),
    "500_stalled_handshakes_http": stalled_handshakes("http"),
    "tls_silence_after_the_handshake": tls_bytes_after_the_handshake,
    "blank_lines": trickle(b"", b"\r\n"),
    "header_trickle": trickle(b"POST /api/v2/spans HTTP/1.1\r\n", b"X-Y: abc\r\n"),
    "6000_unread_metrics": unread(lambda target: target.metrics, "/metrics"),
    "6000_unread_metrics_on_5_connections": unread(lambda target: target.metrics, "/metrics", 5),
    "6000_unread_health": unread(lambda target: target.health, "/health/detailed"),
    "6000_unread_refusals": unread(lambda target: target.port(), "/nowhere"),
    "pipelined_posts": pipelined_posts,
    "endless_header_line": long_head(b"a" * MIB),
    "endless_header_lines": long_head(b"X-A: b\r\n"),
    "same_header_20_mib": long_head(b"X-A: b\r\n", b"\r\n"),
    "many_heads": many_heads,
    "remembered_heads": remembered_heads,
    "1000_connections": connections,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_agent_withstands(name, survives):
    survives(name, ATTACKS[name])
