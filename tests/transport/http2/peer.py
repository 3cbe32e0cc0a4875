"""A connection without I/O whose streams echo their bodies, and the frames of a peer."""

import struct

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.connection import Http2Connection
from otelwp_agent.transport.http2.header_memory import HeaderMemory
from otelwp_agent.transport.http2.pings import PingRules
from otelwp_agent.transport.http2.streams import Stream
from tests.kit.http2 import headers

HEAD = headers("/test.Service/Echo")
START, OK = b"\x88", b"\x00\x01s\x010"
"""Header blocks of the answers."""


class Echo(Stream):
    """Answers with the body, or keeps it if `hold` is set in the world."""

    def __init__(self, world, number, head):
        super().__init__(world.connection, number, head)
        self.world, self.body, self.events = world, b"", ["opened"]
        world.made.append(self)

    def opened(self):
        if self.ended:
            self.answer()

    def received(self, data, start, stop):
        self.body += data[start:stop]
        if self.ended:
            self.answer()

    def answer(self):
        self.events.append("ended")
        if not self.world.hold:
            self.connection.respond(self, START, self.body, OK)

    def expire(self):
        raise AssertionError

    def aborted(self):
        self.events.append("aborted")


class World:
    """One connection, opened by a peer that has sent its preface and settings."""

    def __init__(self, *, max_streams=100, opened=True, memory=None, hold=False, settings=b""):
        self.now, self.hold, self.made = 0.0, hold, []
        self.connection = Http2Connection(
            lambda number, head: Echo(self, number, head),
            memory or HeaderMemory(),
            lambda: self.now,
            max_streams=max_streams,
            pings=PingRules(lambda: self.now),
        )
        self.connection.open()
        if opened:
            self.send(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, settings))
            self.sent()

    def send(self, *parts, turn=1000):
        data = b"".join(parts)
        return len(data) - self.connection.receive(data, turn)

    def sent(self):
        """Return the frames that were sent since the last call: (type, flags, stream, payload)."""
        data, found = b"".join(self.connection.out), []
        self.connection.out.clear()
        while data:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found

    def kinds(self):
        return [(kind, stream) for kind, _, stream, _ in self.sent()]

    def error(self):
        """Return the code of the GOAWAY frame that ends the connection, or None."""
        codes = [payload[4:8] for kind, _, _, payload in self.sent() if kind == frames.GOAWAY]
        assert self.connection.closed == bool(codes)
        return frames.ErrorCode.from_bytes(codes[0], "big") if codes else None

    def reset(self):
        """Return (stream, code) of the only frame sent, which resets a stream."""
        ((kind, _, stream, payload),) = self.sent()
        assert kind == frames.RST_STREAM
        return stream, frames.ErrorCode.from_bytes(payload, "big")


def head(stream=1, flags=frames.END_HEADERS, block=HEAD):
    return frames.frame(frames.HEADERS, flags, stream, block)


def data(body=b"", stream=1, flags=frames.END_STREAM):
    return frames.frame(frames.DATA, flags, stream, body)


def settings(**values):
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "unknown": 99}
    return b"".join(struct.pack(">HI", names[name], value) for name, value in values.items())
