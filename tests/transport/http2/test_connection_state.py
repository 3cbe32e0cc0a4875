"""The end of a connection."""

from otelwp_agent.transport.http2.frames import (
    GOAWAY,
    HEADERS,
    MAX_STREAM,
    PING,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    frame,
    goaway,
    ping,
)
from otelwp_agent.transport.http2.pings import DRAIN, KEEPALIVE
from tests.transport.http2.peer import OK, World, data, head


def drained(world):
    world.connection.drain()
    assert world.sent() == [(GOAWAY, 0, 0, goaway(MAX_STREAM, ErrorCode.NO_ERROR)[9:]), (PING, 0, 0, DRAIN)]


def test_a_drained_connection_serves_what_its_peer_opens_until_it_has_read_that():
    world = World(hold=True)
    world.send(head(1), data(b"a"))
    drained(world)
    world.send(head(3), data(b"b", 3), ping(DRAIN, ack=True))
    assert world.sent() == [(GOAWAY, 0, 0, goaway(3, ErrorCode.NO_ERROR)[9:])]
    world.send(head(5), data(b"c", 5))
    assert (world.sent(), [stream.id for stream in world.made]) == ([], [1, 3])
    for stream in world.made:
        assert not world.connection.finished
        world.connection.respond_at_once(stream, OK)
    assert world.connection.finished


def test_draining_twice_is_draining_once():
    world = World()
    drained(world)
    world.connection.drain()
    world.connection.finish_drain()
    world.connection.finish_drain()
    assert world.kinds() == [(GOAWAY, 0)]
    assert world.connection.finished


def test_a_connection_that_its_peer_gives_up_ends_after_the_answers():
    world = World(hold=True)
    world.send(head(), data(b"a"), goaway(0, ErrorCode.NO_ERROR))
    assert not world.connection.finished
    world.connection.respond_at_once(world.made[0], OK)
    assert world.connection.finished


def test_a_failed_connection_names_the_last_stream_and_aborts_all():
    world = World(hold=True)
    world.send(head(), data(b"a"), head(3))
    world.connection.fail(ErrorCode.ENHANCE_YOUR_CALM, "too much")
    world.connection.fail(ErrorCode.PROTOCOL_ERROR, "later")
    assert world.sent() == [(GOAWAY, 0, 0, b"\x00\x00\x00\x03\x00\x00\x00\x0btoo much")]
    assert world.connection.error == (ErrorCode.ENHANCE_YOUR_CALM, "too much")
    assert [stream.events[-1] for stream in world.made] == ["aborted", "aborted"]
    world.connection.respond_at_once(world.made[0], OK)
    world.connection.drain()
    world.connection.check_alive()
    assert world.sent() == []


def test_the_number_of_requests_may_change():
    world = World(max_streams=1, hold=True)
    world.connection.allow(1)
    assert world.sent() == []
    world.connection.allow(2)
    assert world.sent() == [(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x02")]
    world.send(head(1), head(3), head(5))
    assert world.kinds() == [(RST_STREAM, 5)]


def test_a_ping_checks_that_the_peer_is_there():
    world = World()
    world.connection.check_alive()
    assert world.sent() == [(PING, 0, 0, KEEPALIVE)]
    world.send(ping(KEEPALIVE, ack=True))
    assert world.sent() == []


def test_late_trailers_of_a_stream_that_we_have_reset_are_read():
    world = World()
    world.send(head())
    world.connection.reset(world.made[0], ErrorCode.CANCEL)
    world.connection.reset(world.made[0], ErrorCode.CANCEL)
    assert world.kinds() == [(RST_STREAM, 1)]
    world.send(head(flags=5, block=b"\x40\x01x\x01y"))  # it adds an entry to the table
    world.send(head(3, block=b"\x83\x86\x84\xbe"), data(b"", 3))
    assert (HEADERS, 3) in world.kinds()
    assert world.made[-1].head.fields == {"x": "y"}


def test_an_unknown_frame_is_ignored():
    world = World()
    world.send(frame(0x55, 0xFF, 77, b"anything"), head(), data(b""))
    assert (HEADERS, 1) in world.kinds()
