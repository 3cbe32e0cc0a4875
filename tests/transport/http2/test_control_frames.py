"""Frames that carry no request, and violations of their rules."""

import pytest

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import (
    GOAWAY,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from tests.transport.http2.peer import World, data, head, settings

GOAWAYS = {
    "priority on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "reset of stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "reset of an idle stream": (frame(RST_STREAM, 0, 9, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "a short reset": (frame(RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "an acknowledgement with a payload": (frame(SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "half a setting": (frame(SETTINGS, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "a push": (frame(PUSH_PROMISE, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "a ping on a stream": (frame(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a short ping": (frame(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "goaway on a stream": (frame(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a short goaway": (frame(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "a short update": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "an update of an idle stream": (frames.window_update(9, 1), ErrorCode.PROTOCOL_ERROR),
    "an update of nothing": (frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "too large an update": (frames.window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", GOAWAYS)
def test_a_violation_that_ends_the_connection(name):
    sent, code = GOAWAYS[name]
    world = World(hold=True)
    world.send(head(), sent)
    assert world.error() is code
    assert world.made[0].events == ["opened", "aborted"]


RESETS = {
    "a short priority": (frame(PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "a stream that depends on itself": (frame(PRIORITY, 0, 1, b"\x00\x00\x00\x01\x00"), ErrorCode.PROTOCOL_ERROR),
    "an update of nothing": (frames.window_update(1, 0), ErrorCode.PROTOCOL_ERROR),
    "too large an update": (frames.window_update(1, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", RESETS)
def test_a_violation_that_ends_one_stream(name):
    sent, code = RESETS[name]
    world = World(hold=True)
    world.send(head(), sent)
    assert world.reset() == (1, code)
    assert not world.connection.closed


def test_a_reset_gives_up_the_stream_without_an_answer():
    world = World(hold=True)
    world.send(head(), frames.rst_stream(1, ErrorCode.CANCEL))
    assert (world.sent(), world.connection.streams) == ([], {})
    assert world.made[0].events == ["opened", "aborted"]
    world.send(frames.rst_stream(1, ErrorCode.CANCEL), frames.window_update(1, 5), frame(PRIORITY, 0, 1, bytes(5)))
    assert world.sent() == []
    world.send(data(b"late"))
    assert world.reset() == (1, ErrorCode.STREAM_CLOSED)


def test_settings_and_pings_are_acknowledged():
    world = World()
    world.send(frame(SETTINGS, 0, 0, settings(unknown=1, streams=0)), frame(PING, 0, 0, b"12345678"))
    assert world.sent() == [(SETTINGS, 1, 0, b""), (PING, 1, 0, b"12345678")]
