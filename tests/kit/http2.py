"""A client of HTTP/2 that sends what no library would: messages that never end, floods of frames.

It keeps to flow control, because a server may rightly close a connection that does not.
"""

import selectors
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
_INITIAL_WINDOW = 4
_FRAME = 16 * 1024
_WINDOW = 65_535


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(path, *extra):
    """Return a header block for a gRPC call (RFC 7541: indexed fields for the method and scheme, the rest literal)."""
    fields = ((b":path", path.encode()), (b":authority", b"localhost"), (b"te", b"trailers"))
    fields += ((b"content-type", b"application/grpc"), *extra)
    return b"\x83\x86" + b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields
    )


class Connection:
    """One connection with `streams` calls of `path`.

    Each sends `size` bytes (zeros, or the bytes themselves) of a message that claims to have `claim` bytes; `end` ends
    the stream after them.
    """

    def __init__(self, port, path, *, size, claim, streams=1, extra=(), compressed=False, end=False):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(0)
        self.statuses = {}
        """What ended a stream: the kind of frame and its payload; 0 is the connection."""
        body = struct.pack(">BI", compressed, claim) + (size if isinstance(size, bytes) else bytes(size))
        self._left = {2 * number + 1: memoryview(body) for number in range(streams)}
        self._windows = {0: _WINDOW, **dict.fromkeys(self._left, _WINDOW)}
        self._initial = _WINDOW
        self._in = b""
        self._end = end
        block = headers(path, *extra)
        self._out = bytearray(PREFACE + frame(SETTINGS, 0, 0))
        self._out += b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in self._left)

    @property
    def unsent(self):
        """Bytes of messages that flow control or the socket has held back."""
        return sum(map(len, self._left.values()))

    def close(self):
        self.socket.close()

    def turn(self):
        """Read and write what can be read and written now; return whether anything moved."""
        moved = self._read()
        if len(self._out) < _FRAME:
            self._fill()
        if self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return moved
            except OSError:
                self.statuses.setdefault(0, (GOAWAY, b""))
                self._out.clear()
                self._left.clear()
                return moved
            del self._out[:sent]
            moved = True
        return moved

    def _fill(self):
        for stream, left in self._left.items():
            rest = left
            while rest and len(self._out) < 16 * _FRAME:
                size = min(_FRAME, self._windows[stream], self._windows[0], len(rest))
                if not size:
                    break
                last = END_STREAM if self._end and size == len(rest) else 0
                self._out += frame(DATA, last, stream, rest[:size])
                rest = rest[size:]
                self._windows[stream] -= size
                self._windows[0] -= size
            self._left[stream] = rest

    def _read(self):
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.statuses.setdefault(0, (GOAWAY, b""))
            self._left.clear()
            return False
        self._in += data
        while len(self._in) >= 9:
            size = int.from_bytes(self._in[:3], "big")
            if len(self._in) < 9 + size:
                break
            kind, flags = self._in[3], self._in[4]
            stream = int.from_bytes(self._in[5:9], "big") & 0x7FFFFFFF
            payload, self._in = self._in[9 : 9 + size], self._in[9 + size :]
            self._take(kind, flags, stream, payload)
        return True

    def _take(self, kind, flags, stream, payload):
        if kind == WINDOW_UPDATE:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW:
                    for each in self._left:
                        self._windows[each] += value - self._initial
                    self._initial = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind in (HEADERS, RST_STREAM, GOAWAY):
            self.statuses.setdefault(stream, (kind, payload))
            self._left.pop(stream, None)


def drive(connections, seconds, until=lambda: False):
    """Move all `connections` for `seconds`, or until the condition `until()` holds."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for each in connections:
            selector.register(each.socket, selectors.EVENT_READ)
        while (rest := end - time.monotonic()) > 0 and not until():
            if not sum(each.turn() for each in connections):
                selector.select(min(rest, 0.005))
