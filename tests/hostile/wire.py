"""Send bytes to a port as an attacker does: the attack continues or ends, whatever the server does."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

PATIENCE = 12.0
"""Seconds after which a client stops waiting for an answer."""
PROTOBUF, JSON, THRIFT = "application/x-protobuf", "application/json", "application/x-thrift"


def head(path: str, length: int | None, content_type: str = PROTOBUF, *lines: str, method: str = "POST") -> bytes:
    """Return the head of a request; if `length` is None, its body is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    fields = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", size, *lines)
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def send(port: int, data: bytes) -> bytes:
    """Send `data` on a new connection; return the first bytes of the answer, or nothing."""
    with connect(port) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        with contextlib.suppress(OSError):
            return sock.recv(65_536)
    return b""


def post(port: int, path: str, body: bytes, content_type: str = PROTOBUF, *lines: str) -> bytes:
    return send(port, head(path, len(body), content_type, *lines) + body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def flood(port: int, data: bytes, connections: int, seconds: float) -> list[socket.socket]:
    """Send `data` on many connections at once for `seconds` without reading; return the connections."""
    rest: dict[socket.socket, memoryview] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            sock = socket.socket()
            sock.settimeout(0)
            sock.connect_ex(("127.0.0.1", port))
            rest[sock] = memoryview(data)
            selector.register(sock, selectors.EVENT_WRITE)
        end = time.monotonic() + seconds
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                sock = key.fileobj
                try:
                    rest[sock] = rest[sock][sock.send(rest[sock][: 256 * 1024]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    rest[sock] = memoryview(b"")
                if not rest[sock]:
                    selector.unregister(sock)
    time.sleep(max(0.0, end - time.monotonic()))  # the attack is that the connections stay open
    return list(rest)


def still_open(sockets: list[socket.socket]) -> int:
    """Return how many of the connections the server has not closed; no data is read from them."""
    count = 0
    for sock in sockets:
        sock.settimeout(0)
        try:
            count += sock.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
