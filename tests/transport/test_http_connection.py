from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import RetryableError
from otelwp_agent.transport import http_connection
from otelwp_agent.transport.http_connection import MAX_HEAD, ConnectionClosedError, HttpConnection

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"


class Wire(asyncio.Transport):
    """The other end of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False
        self.unsent = 0

    def writelines(self, parts):
        self.written += b"".join(parts)

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = self.aborted = True

    def is_closing(self):
        return self.closed

    def get_write_buffer_size(self):
        return self.unsent


def a_connection():
    wire, lost = Wire(), []
    connection = HttpConnection("peer:1", lost.append)
    connection.connection_made(wire)
    return connection, wire, lost


async def exchange(*data: bytes, then=None):
    """Send a request, get `data` back, and return (response or error, connection, wire)."""
    connection, wire, _ = a_connection()
    task = asyncio.ensure_future(connection.exchange(b"HEAD", b"BODY"))
    await asyncio.sleep(0)
    assert wire.written == b"HEADBODY"
    for piece in data:
        connection.data_received(piece)
    if then is not None:
        then(connection)
    try:
        return await task, connection, wire
    except RetryableError as error:
        return error, connection, wire


async def test_a_response_is_read_and_the_connection_kept():
    response, connection, wire = await exchange(OK)
    assert (response.status, response.body, response.complete) == (200, b"hi", True)
    assert response.headers == {"content-type": "text/plain", "content-length": "2"}
    assert connection.reusable
    assert not wire.closed


@given(st.lists(st.integers(1, len(OK) - 1)))
def test_where_the_bytes_are_cut_does_not_matter(cuts):
    edges = [0, *sorted(set(cuts)), len(OK)]
    pieces = [OK[start:end] for start, end in itertools.pairwise(edges)]
    response, connection, _ = asyncio.run(exchange(*pieces))
    assert (response.status, response.body) == (200, b"hi")
    assert connection.reusable


@given(st.binary(max_size=200))
def test_noise_is_an_error_and_nothing_worse(noise):
    answer, _, _ = asyncio.run(exchange(noise, then=lambda connection: connection.connection_lost(None)))
    assert isinstance(answer, (RetryableError, http_connection.ClientResponse))


async def test_informational_responses_are_skipped():
    response, _, _ = await exchange(b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early\r\nX: 2\r\n\r\n" + OK)
    assert response.status == 200
    assert "x" not in response.headers


async def test_chunks_are_joined_and_trailers_left_out():
    response, connection, _ = await exchange(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nLate: 1\r\n\r\n"
    )
    assert response.body == b"hello"
    assert "late" not in response.headers
    assert connection.reusable


async def test_repeated_headers_are_joined():
    response, _, _ = await exchange(b"HTTP/1.1 204 No\r\nWarning: a\r\nWARNING: b\r\n\r\n")
    assert response.headers == {"warning": "a, b"}


@pytest.mark.parametrize("version", [b"HTTP/1.1 200 OK\r\nConnection: close", b"HTTP/1.0 200 OK"])
async def test_a_connection_that_is_to_close_is_closed(version):
    response, connection, wire = await exchange(version + b"\r\nContent-Length: 2\r\n\r\nhi")
    assert response.body == b"hi"
    assert wire.closed
    assert not connection.reusable


async def test_an_answer_before_all_was_sent_is_the_last_one():
    connection, wire, _ = a_connection()
    wire.unsent = 1
    task = asyncio.ensure_future(connection.exchange(b"HEAD", b"BODY"))
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (await task).status == 413
    assert wire.closed


async def test_a_body_without_length_ends_with_the_connection():
    response, _, _ = await exchange(
        b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", then=lambda connection: connection.connection_lost(None)
    )
    assert response.body == b"hello"


async def test_a_body_without_length_does_not_end_with_a_reset():
    error, _, _ = await exchange(
        b"HTTP/1.1 200 OK\r\n\r\nhel", then=lambda connection: connection.connection_lost(ConnectionResetError())
    )
    assert isinstance(error, ConnectionClosedError)


@pytest.mark.parametrize(
    ("data", "answered", "message"),
    [
        (b"", False, "peer:1 closed the connection before it answered"),
        (b"HT", True, "peer:1 closed the connection in the middle of its answer"),
        (OK[:-1], True, "peer:1 closed the connection in the middle of its answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True, "peer:1 closed the connection in the middle of its answer"),
    ],
)
async def test_an_early_close_says_how_far_the_answer_had_come(data, answered, message):
    error, _, _ = await exchange(*([data] if data else []), then=lambda connection: connection.connection_lost(None))
    assert isinstance(error, ConnectionClosedError)
    assert (error.answered, str(error)) == (answered, message)


async def test_a_body_above_the_limit_is_cut_and_the_status_kept(monkeypatch):
    monkeypatch.setattr(http_connection, "MAX_BODY", 4)
    response, _, wire = await exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01", b"23456789")
    assert (response.status, response.body, response.complete) == (200, b"0123", False)
    assert wire.aborted


async def test_endless_headers_are_given_up():
    error, _, wire = await exchange(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * MAX_HEAD)
    assert isinstance(error, RetryableError)
    assert "bytes of headers" in str(error)
    assert wire.aborted


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer in HTTP/1.1: "),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", "gRPC port"),
    ],
)
async def test_another_protocol_is_named_as_such(data, hint):
    error, _, wire = await exchange(data)
    assert isinstance(error, RetryableError)
    assert hint in str(error)
    assert wire.aborted


async def test_switching_protocols_is_refused():
    error, _, _ = await exchange(b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    assert isinstance(error, RetryableError)


async def test_more_than_was_asked_for_ends_the_connection():
    response, _, wire = await exchange(OK + OK)
    assert response.body == b"hi"
    assert wire.closed


async def test_what_nobody_asked_for_ends_the_connection():
    connection, wire, _ = a_connection()
    connection.data_received(OK)
    assert wire.aborted


async def test_a_cancelled_exchange_ends_the_connection():
    connection, wire, _ = a_connection()
    task = asyncio.ensure_future(connection.exchange(b"HEAD", b""))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.aborted


async def test_a_lost_connection_tells_its_owner_and_takes_nothing_more():
    connection, _, lost = a_connection()
    connection.connection_lost(None)
    assert lost == [connection]
    with pytest.raises(ConnectionClosedError):
        await connection.exchange(b"HEAD", b"")
