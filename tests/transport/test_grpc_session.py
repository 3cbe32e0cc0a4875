"""Connections of a gRPC server, frame by frame: what is written, time limits, and clients that do not read."""

import asyncio
import contextlib
import time

import pytest

from otelwp_agent.transport import grpc_session, grpc_timeouts
from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame
from tests.kit import http2
from tests.kit.grpc_peer import ECHO, call, serving

HEAD = http2.headers(ECHO)
MESSAGE = b"\x00\x00\x00\x00\x05hello"
OPENING = frames.PREFACE + frame(SETTINGS, 0, 0)


def request(stream=1, message=MESSAGE, block=HEAD, flags=1):
    return frame(HEADERS, 4, stream, block) + frame(DATA, flags, stream, message)


class Client:
    """A connection that has sent its preface; `read` returns the next frame, None at the end."""

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, server, first=OPENING):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", server.port)
        self.writer.write(first)
        try:
            yield self
        finally:
            self.writer.close()

    async def read(self):
        async with asyncio.timeout(60):
            try:
                start = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(start[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return start[3], start[4], int.from_bytes(start[5:], "big"), payload

    async def until(self, *kinds):
        """Return the next frame of one of `kinds`, or None at the end."""
        while (found := await self.read()) is not None and found[0] not in kinds:
            pass
        return found


async def test_all_frames_of_one_read_are_answered_with_one_write(monkeypatch):
    writes = []
    original = grpc_session.GrpcSession.flush

    def flush(session):
        if session.connection.out:
            writes.append(b"".join(session.connection.out))
        original(session)

    monkeypatch.setattr(grpc_session.GrpcSession, "flush", flush)
    async with (
        serving() as server,
        Client.to(server, OPENING + request(1) + request(3) + frames.ping(b"12345678")) as client,
    ):
        assert (await client.until(PING))[3] == b"12345678"
    settings, answers, *_end = writes
    assert settings[3] == SETTINGS
    assert (answers.count(b"hello"), answers.count(b"12345678")) == (2, 1)


async def test_many_requests_of_one_read_are_answered_in_turns():
    async with serving(max_concurrent_streams=1000) as server:
        count = 3 * grpc_session.CALLS_PER_TURN
        async with Client.to(server, OPENING + b"".join(request(2 * number + 1) for number in range(count))) as client:
            for number in range(count):
                assert (await client.until(DATA))[2:] == (2 * number + 1, MESSAGE)
            assert server.in_flight.used == 0


@pytest.mark.parametrize("first", [b"", frames.PREFACE[:10], frames.PREFACE, OPENING + b"\x00\x00\x05"])
async def test_a_connection_that_does_not_go_on_is_closed(monkeypatch, first):
    monkeypatch.setattr(grpc_timeouts, "HANDSHAKE", 0.05)
    reasons = []
    async with serving(on_refused=reasons.append, read_timeout="50ms") as server, Client.to(server, first) as client:
        assert (await client.until(GOAWAY))[3][4:8] == b"\x00\x00\x00\x04"
        assert await client.until(GOAWAY) is None
        assert reasons[0] == "timeout"


async def test_an_idle_connection_is_closed_without_an_error():
    keepalive = {"server_parameters": {"max_connection_idle": "50ms"}}
    async with serving(keepalive=keepalive) as server, Client.to(server, OPENING + request()) as client:
        assert (await client.until(GOAWAY))[3] == b"\x00\x00\x00\x01" + bytes(4)
        assert await client.read() is None


async def test_a_client_that_does_not_answer_a_ping_is_disconnected():
    keepalive = {"server_parameters": {"time": "50ms", "timeout": "50ms"}}
    async with serving(keepalive=keepalive) as server, Client.to(server) as client:
        assert (await client.until(PING))[1] == 0
        assert await client.until(GOAWAY) is None


async def test_a_client_that_answers_pings_stays_connected():
    keepalive = {"server_parameters": {"time": "50ms", "timeout": "60s"}}
    async with serving(keepalive=keepalive) as server, Client.to(server) as client:
        for _ in range(2):
            client.writer.write(frames.ping((await client.until(PING))[3], ack=True))


async def test_a_client_that_gives_no_window_is_disconnected(monkeypatch):
    monkeypatch.setattr(grpc_session, "WRITE", 0.05)
    no_window = frame(SETTINGS, 0, 0, b"\x00\x04" + bytes(4))
    async with serving() as server, Client.to(server, frames.PREFACE + no_window + request()) as client:
        assert (await client.until(HEADERS))[2] == 1
        assert await client.until(DATA) is None


async def test_a_client_that_reads_nothing_is_not_read_and_disconnected(monkeypatch):
    monkeypatch.setattr(grpc_session, "WRITE", 0.05)
    async with serving(lambda *_: bytes(10_000)) as server, Client.to(server) as client:
        client.writer.transport.pause_reading()
        end = time.monotonic() + 60
        client.writer.write(frames.window_update(0, 2**30))
        number = -1
        while server.sessions and time.monotonic() < end:
            number += 2
            client.writer.write(request(number))
            await asyncio.sleep(0.0005)  # the kernel's buffers fill up meanwhile
        assert not server.sessions


async def test_the_deadline_of_a_call_is_kept():
    pending = asyncio.get_running_loop().create_future()
    block = HEAD + b"\x00\x0cgrpc-timeout\x0350m"
    async with serving(lambda *_: pending) as server, Client.to(server, OPENING + request(block=block)) as client:
        assert b"grpc-status\x014" in (await client.until(HEADERS))[3]
        pending.set_result(b"too late")
        client.writer.write(frames.ping(b"12345678"))
        assert (await client.read())[0] == PING, "the late result is dropped"
        assert server.in_flight.used == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(message=b""), b"13"),
        (request(message=MESSAGE[:-1]), b"13"),
        (request(message=MESSAGE[:3]), b"13"),
        (request(message=MESSAGE + MESSAGE), b"13"),
        (request(message=b"\x01" + MESSAGE[1:]), b"13"),
        (request(message=b"\x00\x01\x00\x00\x01", flags=0), b"8"),
        (request(block=HEAD + b"\x00\x0cgrpc-timeout\x01x"), b"13"),
        (frame(HEADERS, 5, 1, HEAD), b"13"),
    ],
)
async def test_messages_that_are_refused(sent, status):
    reasons = []
    async with (
        serving(on_refused=reasons.append, max_recv_msg_size_mib=1, max_concurrent_streams_per_peer=1) as server,
        Client.to(server, OPENING + sent) as client,
    ):
        answer = (await client.until(HEADERS))[3]
        assert b"grpc-status" + bytes((len(status),)) + status in answer
        assert len(reasons) == 1
        client.writer.write(request(3))
        assert (await client.until(DATA))[2:] == (3, MESSAGE)
        assert (server.in_flight.used, len(server.per_peer)) == (0, 0)


async def test_a_message_in_pieces_across_frames():
    async with serving() as server, Client.to(server, OPENING + frame(HEADERS, 4, 1, HEAD)) as client:
        for byte in MESSAGE:
            client.writer.write(frame(DATA, 0, 1, bytes((byte,))))
            await client.writer.drain()
        client.writer.write(frame(DATA, 1, 1))
        assert (await client.until(DATA))[3] == MESSAGE
        assert server.in_flight.used == 0


async def test_tiny_frames_do_not_become_objects_of_their_own():
    async with serving() as server, Client.to(server, OPENING + frame(HEADERS, 4, 1, HEAD)) as client:
        client.writer.write(frame(DATA, 0, 1, b"\x00\x00\x00\x3f\x00"))
        client.writer.write(frame(DATA, 0, 1, b"x") * 16_127)
        async with asyncio.timeout(60):
            while server.in_flight.used != 16_132:
                await asyncio.sleep(0.005)
        ((call,),) = [each.connection.streams.values() for each in server.sessions]
        assert len(call._parts) <= 5
        client.writer.write(frame(DATA, 1, 1, b"y"))
        assert (await client.until(DATA))[3][5:] == b"x" * 16_127 + b"y"


async def test_a_refusal_stops_the_sender_of_a_large_message():
    def refuse(*_):
        raise AssertionError

    async with serving(refuse) as server:
        server.in_flight.hard = -1
        server.in_flight.soft = -1
        async with Client.to(server, OPENING + frame(HEADERS, 4, 1, HEAD)) as client:
            assert b"grpc-status\x018" in (await client.until(HEADERS))[3]
            assert (await client.read())[0] == RST_STREAM


async def test_other_protocols_get_an_answer_over_http_2():
    get = b"\x82\x86\x84\x01\x01x"
    async with serving() as server, Client.to(server, OPENING + frame(HEADERS, 5, 1, get)) as client:
        assert b"405" in (await client.until(HEADERS))[3]
        assert (await client.read())[3] == b"this port speaks gRPC only\n"


async def test_a_new_limit_of_a_successor_is_sent_to_open_connections():
    from tests.kit.agent import free_port
    from tests.kit.grpc_peer import make

    endpoint = f"127.0.0.1:{free_port()}"
    first = make(endpoint=endpoint)
    await first.start()
    async with Client.to(first, OPENING + request()) as client:
        assert (await client.until(DATA))[3] == MESSAGE
        async with serving(lambda *_: b"new", endpoint=endpoint, max_concurrent_streams=7):
            await first.shutdown()
            assert (await client.until(SETTINGS))[3] == b"\x00\x03\x00\x00\x00\x07"
            client.writer.write(request(3))
            assert (await client.until(DATA))[3] == b"\x00\x00\x00\x00\x03new"


async def test_the_window_of_the_connection_is_given_back():
    async with serving(lambda *_: b"") as server, Client.to(server) as client:
        body = b"\x00\x00\x0f\xff\xfb" + bytes(2**20 - 5)
        client.writer.write(frame(HEADERS, 4, 1, HEAD))
        window, at = {0: 65_535, 1: 0}, 0
        while at < len(body):
            while min(window.values()) <= 0 or not window[1]:
                kind, flags, stream, payload = await client.read()
                if kind == WINDOW_UPDATE:
                    window[stream] += int.from_bytes(payload, "big")
                elif kind == SETTINGS and not flags:
                    window[1] = 256 * 1024
            size = min(16_384, *window.values(), len(body) - at)
            client.writer.write(frame(DATA, int(at + size == len(body)), 1, body[at : at + size]))
            at += size
            window = {each: left - size for each, left in window.items()}
        assert (await client.until(DATA))[3] == bytes(5)
        assert await call(server.port) == b""
