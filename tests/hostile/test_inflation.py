"""Attacks with content encodings and trailers: few bytes, or 20 MiB, that are expensive for a server."""

import pytest

from tests.hostile import bodies, wire
from tests.hostile.attack import posted
from tests.hostile.bodies import SPAN

TRACES = "/v1/traces"


def encoded(encoding, make):
    """Return an attack: one OTLP request with this content encoding."""
    return posted("otlp", TRACES, make, wire.PROTOBUF, f"Content-Encoding: {encoding}")


def trailers(target):
    """Send 3 MB of one repeated trailer."""
    data = wire.head(TRACES, None) + b"%x\r\n%s\r\n0\r\n" % (len(SPAN), SPAN) + b"X-T: a\r\n" * 375_000 + b"\r\n"
    wire.send(target.port(), data)


def distinct_trailers(target):
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(250_000))
    wire.send(target.port(), wire.head(TRACES, None) + b"0\r\n" + lines + b"\r\n")


def tiny_chunks(target):
    """Send 3 M chunks of one byte."""
    wire.send(target.port(), wire.head(TRACES, None) + b"1\r\na\r\n" * 3_000_000 + b"0\r\n\r\n")


def chunk_extensions(target):
    wire.send(target.port(), wire.head(TRACES, None) + b"1;" + b"a=b;" * 2_500_000 + b"\r\na\r\n0\r\n\r\n")


ATTACKS = {
    "empty_gzip_members": encoded("gzip", lambda: bodies.empty_members(0)),
    "empty_gzip_members_in_gzip": encoded("gzip, gzip", lambda: bodies.empty_members(1)),
    "empty_gzip_members_in_gzip_in_gzip": encoded("gzip, gzip, gzip", lambda: bodies.empty_members(2)),
    "300_codings": encoded(", ".join(["deflate"] * 300), lambda: bodies.stored(300)),
    "gzip_bomb": encoded("gzip", bodies.gzip_bomb),
    "gzip_bomb_in_gzip": encoded("gzip, gzip", lambda: bodies.gzip(bodies.gzip_bomb(), 1)),
    "empty_blocks": encoded("deflate", bodies.empty_blocks),
    "empty_blocks_in_gzip": encoded("deflate, gzip", lambda: bodies.gzip(bodies.empty_blocks(19 * bodies.MIB), 1)),
    "zstd_bomb": encoded("zstd", bodies.zstd_bomb),
    "zstd_window": encoded("zstd", bodies.zstd_window),
    "garbage_after_gzip": encoded("gzip", bodies.garbage_after_gzip),
    "trailers": trailers,
    "distinct_trailers": distinct_trailers,
    "tiny_chunks": tiny_chunks,
    "chunk_extensions": chunk_extensions,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_agent_withstands(name, survives):
    survives(name, ATTACKS[name])
