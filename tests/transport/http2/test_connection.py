"""The state machine of a connection: requests, and violations of each rule. tests/interop runs h2spec in addition."""

import pytest

from otelwp_agent.transport.http2 import connection, frames
from otelwp_agent.transport.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PRIORITIZED,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from tests.transport.http2.peer import HEAD, OK, START, World, data, head

ECHO = [(HEADERS, END_HEADERS, 1, START), (DATA, 0, 1, b"hello"), (HEADERS, END_HEADERS | END_STREAM, 1, OK)]


def test_the_connection_begins_with_our_settings_and_a_larger_window():
    world = World(opened=False, max_streams=7)
    (kind, _, _, payload), update = world.sent()
    assert kind == SETTINGS
    assert payload[:6] == b"\x00\x03\x00\x00\x00\x07"
    assert update == (WINDOW_UPDATE, 0, 0, (connection.CONNECTION_WINDOW - 65_535).to_bytes(4, "big"))


def test_a_request_is_answered():
    world = World()
    world.send(head(), data(b"hello"))
    assert world.sent() == ECHO
    assert world.connection.streams == {}


@pytest.mark.parametrize("size", [1, 7, 9, 30])
def test_pieces_of_any_size_mean_the_same(size):
    world, kept = World(opened=False), b""
    world.sent()
    stream = frames.PREFACE + frame(SETTINGS, 0, 0) + head() + data(b"hel", flags=0) + data(b"lo")
    for at in range(0, len(stream), size):
        kept += stream[at : at + size]
        kept = kept[len(kept) - world.send(kept) :]
    assert [each for each in world.sent() if each[0] != SETTINGS] == ECHO


def test_padding_and_priority_are_left_out():
    world = World()
    padded = b"\x03" + b"\x80\x00\x00\x00\x10" + HEAD + bytes(3)
    world.send(
        frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, padded), data(b"\x02hello\x00\x00", flags=PADDED | 1)
    )
    assert world.sent() == ECHO


def test_a_header_block_in_several_frames():
    world = World()
    world.send(frame(HEADERS, 0, 1, HEAD[:5]), frame(CONTINUATION, 0, 1, HEAD[5:9]))
    assert world.connection.in_block
    world.send(frame(CONTINUATION, END_HEADERS, 1, HEAD[9:]), data(b"hello"))
    assert world.sent() == ECHO


def test_trailers_end_a_request():
    world = World()
    world.send(head(), data(b"hello", flags=0), head(flags=END_HEADERS | END_STREAM, block=b"\x00\x01x\x01y"))
    assert world.sent() == ECHO


def test_requests_wait_for_their_turn():
    world = World()
    left = world.send(*(head(number) + data(b"x", number) for number in (1, 3, 5)), turn=2)
    assert left == len(head(5) + data(b"x", 5)) + len(data(b"x", 3))
    assert [stream.id for stream in world.made] == [1, 3]


def test_the_connections_window_is_given_back_for_every_stream():
    world = World()
    world.send(head(), frame(RST_STREAM, 0, 1, b"\x00\x00\x00\x08"))
    world.connection.recent[1] = None  # as if we had reset it
    for _ in range(16):
        world.send(data(bytes(connection.MAX_FRAME), flags=0))
    updates = [payload for kind, _, stream, payload in world.sent() if kind == WINDOW_UPDATE and not stream]
    assert sum(int.from_bytes(each, "big") for each in updates) == 16 * connection.MAX_FRAME


def test_a_paused_stream_gets_no_window():
    world = World()
    world.send(head())
    (stream,) = world.made
    stream.paused = True
    for _ in range(4):
        world.send(data(bytes(connection.MAX_FRAME), flags=0))
    assert (WINDOW_UPDATE, 1) not in world.kinds()
    stream.paused = False
    world.connection.grant(stream)
    assert world.sent() == [(WINDOW_UPDATE, 0, 1, (4 * connection.MAX_FRAME).to_bytes(4, "big"))]


def test_more_requests_than_allowed_are_refused():
    world = World(max_streams=2)
    world.send(head(1), head(3), head(5), data(b"late", 5))
    assert world.reset() == (5, ErrorCode.REFUSED_STREAM)


def test_an_answer_before_the_end_of_the_request_stops_the_sender():
    world = World()
    world.send(head())
    (stream,) = world.made
    world.connection.respond_at_once(stream, OK)
    assert world.kinds() == [(HEADERS, 1), (RST_STREAM, 1)]
    world.send(data(b"on its way"), head(3), data(b"", 3))
    assert {stream for _, stream in world.kinds()} == {3}


LONG = [frame(HEADERS, 0, 1, HEAD)]
GOAWAYS = {
    "another protocol": (None, b"GET / HTTP/1.1\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "no settings": (None, frames.PREFACE + head(), ErrorCode.PROTOCOL_ERROR),
    "an acknowledgement first": (None, frames.PREFACE + frame(SETTINGS, 1, 0), ErrorCode.PROTOCOL_ERROR),
    "a large frame": (1, frames.head(connection.MAX_FRAME + 1, DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "data on stream 0": (1, data(b"x", 0), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (1, data(b"x", 1), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (1, head(0), ErrorCode.PROTOCOL_ERROR),
    "headers on an even stream": (1, head(2), ErrorCode.PROTOCOL_ERROR),
    "a smaller stream": (1, head(5) + head(3), ErrorCode.PROTOCOL_ERROR),
    "headers again": (1, head() + data() + head(), ErrorCode.STREAM_CLOSED),
    "a stream that depends on itself": (
        1, frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\x00\x00\x00\x01\x10" + HEAD), ErrorCode.PROTOCOL_ERROR,
    ),
    "too much padding": (1, head() + data(b"\x05abc", flags=PADDED), ErrorCode.PROTOCOL_ERROR),
    "an interrupted block": (1, frame(HEADERS, 0, 1, HEAD) + data(b"x"), ErrorCode.PROTOCOL_ERROR),
    "a block of another stream": (
        1, frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 0, 3, b""), ErrorCode.PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (1, frame(CONTINUATION, END_HEADERS, 1, HEAD), ErrorCode.PROTOCOL_ERROR),
    "an endless block": (1, frame(HEADERS, 0, 1) + 33 * frame(CONTINUATION, 0, 1), ErrorCode.ENHANCE_YOUR_CALM),
    "a large block": (
        1, frame(HEADERS, 0, 1) + 5 * frame(CONTINUATION, 0, 1, bytes(16_384)), ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a bad block": (1, head(block=b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("name", GOAWAYS)
def test_a_violation_that_ends_the_connection(name):
    opened, sent, code = GOAWAYS[name]
    world = World(opened=bool(opened), hold=True)
    world.sent()
    if name == "headers again":
        world.hold = False
    world.send(sent)
    assert world.error() is code
    assert all(stream.events[-1] in ("aborted", "ended") for stream in world.made)
    world.send(head(9))
    assert world.sent() == []


RESETS = {
    "data after the end": (head() + data(b"x") + data(b"y"), ErrorCode.STREAM_CLOSED),
    "trailers after the end": (head() + data(b"x") + head(flags=5, block=b""), ErrorCode.STREAM_CLOSED),
    "trailers that do not end": (head() + head(block=b"\x00\x01x\x01y"), ErrorCode.PROTOCOL_ERROR),
    "trailers with a path": (head() + head(flags=5, block=b"\x84"), ErrorCode.PROTOCOL_ERROR),
    "a head without a path": (head(block=b"\x83\x86"), ErrorCode.PROTOCOL_ERROR),
    "a name in capitals": (head(block=HEAD + b"\x00\x01X\x01y"), ErrorCode.PROTOCOL_ERROR),
    "a field of the connection": (head(block=HEAD + b"\x00\x07upgrade\x01y"), ErrorCode.PROTOCOL_ERROR),
    "too short a body": (head(block=HEAD + b"\x0f\x0d\x015") + data(b"four"), ErrorCode.PROTOCOL_ERROR),
    "too long a body": (head(block=HEAD + b"\x0f\x0d\x013") + data(b"four", flags=0), ErrorCode.PROTOCOL_ERROR),
    "a length without a body": (head(flags=5, block=HEAD + b"\x0f\x0d\x013"), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", RESETS)
def test_a_violation_that_ends_one_stream(name):
    sent, code = RESETS[name]
    world = World(hold=True)
    world.send(sent)
    assert world.reset() == (1, code)
    assert world.connection.streams == {}
    world.hold = False
    world.send(head(3), data(b"", 3))
    assert {stream for _, stream in world.kinds()} == {3}, "the connection goes on"


def test_more_data_than_the_windows():
    world = World(hold=True)
    world.send(head())
    world.made[0].paused = True
    world.send(*(data(bytes(connection.MAX_FRAME), flags=0) for _ in range(4)), data(b"x", flags=0))
    assert world.reset() == (1, ErrorCode.FLOW_CONTROL_ERROR)
    world.connection._left = 3
    world.send(head(3), data(b"four", 3))
    assert world.error() is ErrorCode.FLOW_CONTROL_ERROR
