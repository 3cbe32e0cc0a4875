import asyncio

from otelwp_agent.transport import http_stream
from otelwp_agent.transport.http_messages import Route
from otelwp_agent.transport.http_stream import EventStream
from tests.kit.http_site import Site


class Streams:
    """A handler that returns streams, and those that are open."""

    def __init__(self):
        self.open = []
        self.opened = asyncio.Event()
        self.all_ended = asyncio.Event()

    def __call__(self, request):
        done = asyncio.get_running_loop().create_future()
        done.set_result(EventStream(self._begin, self._end, (("X-Thing", "1"),)))
        return done

    def _begin(self, stream):
        self.open.append(stream)
        self.opened.set()

    def _end(self, stream):
        self.open.remove(stream)
        self.all_ended.set()


async def begin(site, streams):
    client = await site.connect()
    client.send(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(60):
        head = await client.reader.readuntil(b"\r\n\r\n")
        await streams.opened.wait()
    return client, head


def served(streams):
    return Site({"/live": Route(streams, methods=("GET",))})


async def test_events_arrive_as_they_are_sent():
    streams = Streams()
    async with served(streams) as site:
        client, head = await begin(site, streams)
        assert b"200 OK" in head
        assert b"Content-Type: text/event-stream" in head
        assert b"X-Thing: 1" in head
        assert b"Content-Length" not in head
        for number in range(3):
            assert streams.open[0].send("graph", b"%d" % number)
            async with asyncio.timeout(60):
                assert await client.reader.readuntil(b"\n\n") == b"event: graph\ndata: %d\n\n" % number
        await client.close()
        async with asyncio.timeout(60):
            await streams.all_ended.wait()


async def test_close_ends_the_connection():
    streams = Streams()
    async with served(streams) as site:
        client, _ = await begin(site, streams)
        stream = streams.open[0]
        stream.close()
        assert await client.closed()
        async with asyncio.timeout(60):
            await streams.all_ended.wait()
        assert not stream.send("graph", b"1")
        await client.close()


async def test_a_server_that_stops_ends_the_streams():
    streams = Streams()
    async with served(streams) as site:
        client, _ = await begin(site, streams)
    assert await client.closed()
    assert streams.open == []
    await client.close()


async def test_a_client_that_does_not_read_gets_no_endless_buffer(monkeypatch):
    monkeypatch.setattr(http_stream, "MAX_UNSENT", 1000)
    streams = Streams()
    async with served(streams) as site:
        client, _ = await begin(site, streams)
        client.reader._transport.pause_reading()
        sent = 0
        while streams.open[0].send("graph", b"x" * 100_000):
            sent += 1
            assert sent < 1000
        client.reset()
        async with asyncio.timeout(60):
            await streams.all_ended.wait()
