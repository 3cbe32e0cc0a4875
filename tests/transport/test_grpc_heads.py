"""The meaning of a call's head."""

import math

import pytest

from otelwp_agent.transport.grpc_heads import CallHead, seconds_of
from otelwp_agent.transport.http2.request_heads import RequestHead


def head(method=b"POST", content_type=b"application/grpc", *more):
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"h")]
    return CallHead(RequestHead([*pseudo, (b"te", b"trailers"), (b"content-type", content_type), *more]))


def test_metadata_are_without_the_protocols_fields_and_binary_values():
    found = head(
        b"POST", b"application/grpc", (b"grpc-encoding", b"gzip"), (b"x", b"1"), (b"x", b"2"), (b"y-bin", b"AA")
    )
    assert found.metadata == found.caller.metadata == {"x": "1, 2"}
    assert (found.http_status, found.encoding, found.known_encoding) == (0, "gzip", True)


@pytest.mark.parametrize(
    ("encoding", "known", "expected"),
    [
        ("identity", True, ""),
        ("zstd", True, "zstd"),
        ("deflate", True, "deflate"),
        ("br", False, "br"),
        ("", False, ""),
    ],
)
def test_encodings(encoding, known, expected):
    found = head(b"POST", b"application/grpc", (b"grpc-encoding", encoding.encode()))
    assert (found.known_encoding, found.encoding) == (known, expected)


@pytest.mark.parametrize(
    ("method", "content_type", "status"),
    [
        (b"POST", b"application/grpc+proto", 0),
        (b"POST", b"application/grpc; charset=utf-8", 0),
        (b"POST", b"application/grpc-web", 415),
        (b"POST", b"application/grpc+json", 415),
        (b"POST", b"application/x-protobuf", 415),
        (b"GET", b"application/grpc", 405),
    ],
)
def test_what_is_not_grpc_gets_a_status_of_http(method, content_type, status):
    assert head(method, content_type).http_status == status


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"10S", 10), (b"250m", 0.25), (b"99999999u", 99.999999), (b"5n", 5e-9)],
)
def test_timeouts(timeout, seconds):
    assert seconds_of(timeout) == pytest.approx(seconds)


def test_no_timeout_and_invalid_ones():
    assert seconds_of(None) == math.inf
    assert all(math.isnan(seconds_of(each)) for each in (b"", b"5", b"S", b"-1S", b"123456789S", b"1 S", b"1s"))
