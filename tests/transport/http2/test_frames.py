"""Frames as bytes."""

import pytest

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import DATA, HEADERS, PADDED, PRIORITIZED, ConnectionViolationError, ErrorCode


def test_frames():
    assert frames.frame(0x55, 0xAA, 7, b"abc") == b"\x00\x00\x03\x55\xaa\x00\x00\x00\x07abc"
    assert frames.head(0x012345, 1, 4, 1)[:3] == b"\x01\x23\x45"
    assert frames.rst_stream(3, ErrorCode.CANCEL) == b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x08"
    assert frames.goaway(5, ErrorCode.NO_ERROR, "x")[9:] == b"\x00\x00\x00\x05\x00\x00\x00\x00x"
    assert frames.window_update(1, 9)[9:] == b"\x00\x00\x00\x09"
    assert frames.ping(b"12345678", ack=True)[3:5] == b"\x06\x01"
    assert frames.settings({1: 2}) == b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02"


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "content"),
    [
        (DATA, PADDED, b"\x00abc", b"abc"),
        (DATA, PADDED, b"\x02abc", b"a"),
        (DATA, PADDED, b"\x03abc", b""),
        (HEADERS, PRIORITIZED, b"12345abc", b"abc"),
        (HEADERS, PRIORITIZED | PADDED, b"\x0112345abc", b"ab"),
    ],
)
def test_padding(kind, flags, payload, content):
    data = b"before" + payload + b"after"
    start, stop = frames.without_padding(kind, flags, data, 6, 6 + len(payload))
    assert data[start:stop] == content


@pytest.mark.parametrize(
    ("kind", "flags", "payload"),
    [(DATA, PADDED, b""), (DATA, PADDED, b"\x04abc"), (HEADERS, PRIORITIZED, b"1234"), (HEADERS, 0x28, b"\x011234")],
)
def test_padding_that_is_longer_than_the_frame(kind, flags, payload):
    with pytest.raises(ConnectionViolationError):
        frames.without_padding(kind, flags, payload, 0, len(payload))
