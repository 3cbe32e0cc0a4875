"""Floods of each kind end the connection after a bounded number of frames; honest clients are not disconnected."""

import pytest

from otelwp_agent.transport.http2 import floods, frames
from otelwp_agent.transport.http2.floods import CAPACITY, PER_SECOND, FloodLimit
from otelwp_agent.transport.http2.frames import CONTINUATION, ConnectionViolationError, ErrorCode, frame
from tests.transport.http2.peer import HEAD, World, data, head, settings

FLOODS = {
    "pings": lambda _: frames.ping(bytes(8)),
    "pongs": lambda _: frames.ping(bytes(8), ack=True),
    "settings": lambda number: frame(frames.SETTINGS, 0, 0, settings(window=number)),
    "acknowledgements": lambda _: frames.SETTINGS_ACK,
    "empty frames": lambda _: data(flags=0),
    "updates": lambda _: frames.window_update(0, 1),
    "updates of a stream": lambda _: frames.window_update(1, 1),
    "priorities": lambda _: frame(frames.PRIORITY, 0, 1, bytes(5)),
    "unknown frames": lambda _: frame(0x42, 0, 1, b"x"),
    "rapid reset": lambda number: head(number) + frames.rst_stream(number, ErrorCode.CANCEL),
    "malformed heads": lambda number: head(number, block=b"\x83"),
    "refused streams": head,
    "data after a reset": lambda _: data(b"x", 3, flags=0),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(name):
    world = World(hold=True, max_streams=1)
    if name == "rapid reset":
        world.connection.max_streams = 100
    else:
        world.send(head(), head(3))
    world.connection.pings._min_time = world.connection.pings._idle_min_time = 0.0
    sent = 0
    while not world.connection.closed:
        world.send(FLOODS[name](2 * sent + 5))
        sent += 1
        assert sent <= CAPACITY + 1
    assert world.error() is ErrorCode.ENHANCE_YOUR_CALM


def test_an_endless_header_block_ends_the_connection():
    world = World()
    world.send(frame(frames.HEADERS, 0, 1, HEAD), *(frame(CONTINUATION, 0, 1, b"") for _ in range(40)))
    assert world.error() is ErrorCode.ENHANCE_YOUR_CALM


def test_the_frames_that_clients_send_with_each_request_are_free():
    """grpcio sends two updates with each request, grpc-go a ping and updates."""
    world = World()
    for number in range(1, 20_000, 2):
        world.send(head(number), frames.window_update(number, 5), data(b"x", number), frames.window_update(0, 5))
        world.send(frames.ping(bytes(8)))
    assert not world.connection.closed
    assert world.connection.floods.left >= CAPACITY - 100


def test_points_come_back_with_time():
    now = 0.0
    limit = FloodLimit(lambda: now)
    limit.spend(CAPACITY)
    with pytest.raises(ConnectionViolationError):
        limit.spend(1)
    now = 1.0
    limit.spend(PER_SECOND - 1)
    now = 1e6
    limit.spend(1)
    limit.spend(1)
    assert limit.left <= CAPACITY


def test_points_are_not_saved_up():
    limit = FloodLimit(lambda: 0.0)
    for _ in range(1000):
        limit.earn()
    assert limit.left < CAPACITY + floods.PER_REQUEST
