"""A stream that a server has not made its own."""

import pytest

from otelwp_agent.transport.http2.request_heads import RequestHead
from otelwp_agent.transport.http2.streams import STREAM_WINDOW, Stream
from tests.transport.http2.peer import World, settings


def test_a_stream_begins_with_both_windows_and_leaves_the_rest_to_its_server():
    world = World(settings=settings(window=77))
    stream = Stream(world.connection, 1, RequestHead([]))
    assert (stream.window, stream.left, stream.ended, stream.paused) == (77, STREAM_WINDOW, False, False)
    for method in (stream.opened, stream.expire, stream.aborted, lambda: stream.received(b"", 0, 0)):
        with pytest.raises(NotImplementedError):
            method()
