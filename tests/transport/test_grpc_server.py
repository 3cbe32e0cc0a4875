"""A real server on loopback, called by grpcio's own client, which shares nothing with ours but the library."""

import asyncio
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import structlog
import uvloop
from google.rpc.error_details_pb2 import RetryInfo

from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.transport.grpc_runtime import aio, grpc
from tests.kit.grpc_peer import ECHO, call, failure, give_up, serving, status_of


async def test_answers_with_what_the_handler_gives():
    async with serving() as server:
        assert await call(server.port, b"\x00\x01") == b"\x00\x01"
        assert await call(server.port, b"") == b""


async def test_handlers_run_on_the_loops_thread():
    import threading

    threads = []
    async with serving(lambda message, _: threads.append(threading.current_thread()) or message) as server:
        await call(server.port)
    assert threads == [threading.main_thread()]


async def test_a_handler_may_answer_later():
    def later(message, _metadata):
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, message * 2)
        return future

    async with serving(later) as server:
        assert await call(server.port, b"ab") == b"abab"


async def test_metadata_reaches_the_handler_in_lower_case_and_without_binary_values():
    seen = []
    async with serving(lambda _, caller: seen.append(caller.metadata) or b"") as server:
        await call(server.port, metadata=(("x-tenant", "shop"), ("x-raw-bin", b"\x00")))
    assert seen[0]["x-tenant"] == "shop"
    assert "x-raw-bin" not in seen[0]


@pytest.mark.parametrize(
    ("error", "code", "wait"),
    [
        (Overloaded("full", retry_after=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED, 2.5),
        (Overloaded("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0),
        (RetryableError("later", retry_after=7), grpc.StatusCode.UNAVAILABLE, 7.0),
        (MalformedError("not protobuf"), grpc.StatusCode.INVALID_ARGUMENT, None),
        (PermanentError("no"), grpc.StatusCode.INVALID_ARGUMENT, None),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_our_errors_become_statuses_that_say_what_to_try_again(error, code, wait, later):
    def refuse(_message, _metadata):
        if not later:
            raise error
        future = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    async with serving(refuse) as server:
        caught = await failure(server.port)
    assert caught.code() is code
    assert caught.details() == str(error)
    status = status_of(caught)
    assert status.code == code.value[0]
    delays = []
    for detail in status.details:
        info = RetryInfo()
        assert detail.Unpack(info)
        delays.append(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    assert delays == ([] if wait is None else [wait])


async def test_an_unexpected_exception_is_internal_and_logged_once_without_the_payload(capfd):
    def broken(_message, _metadata):
        raise KeyError("something")

    with structlog.testing.capture_logs() as logs:
        async with serving(broken) as server:
            caught = await failure(server.port, b"private words")
            assert await failure(server.port, b"x", method="/test.Service/Other") is not None
    assert caught.code() is grpc.StatusCode.INTERNAL
    assert "something" not in caught.details()
    assert [entry["event"] for entry in logs] == ["request failed"]
    assert "private words" not in str(logs)
    assert capfd.readouterr().err == ""


async def test_an_unknown_method_is_unimplemented():
    async with serving() as server:
        caught = await failure(server.port, method="/test.Service/Nothing")
    assert caught.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_arrive_as_they_were(compression):
    body = b"span" * 1000
    async with serving() as server:
        assert await call(server.port, body, compression=compression) == body


async def test_too_large_a_message_is_refused_before_the_handler_sees_it():
    seen = []
    async with serving(lambda message, _: seen.append(message) or b"", max_recv_msg_size_mib=1) as server:
        caught = await failure(server.port, b"x" * (2**20 + 1))
        assert await call(server.port, b"x" * 2**20) == b""
    assert caught.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(seen) == 1


async def test_a_bomb_is_stopped_while_inflating(tmp_path):
    program = tmp_path / "serve.py"
    program.write_text(
        "import asyncio, structlog\n"
        "from otelwp_agent.config import blocks\n"
        "from otelwp_agent.transport.grpc_server import GrpcServer\n"
        "async def main():\n"
        "    settings = blocks.GrpcServer(endpoint='127.0.0.1:0', max_recv_msg_size_mib=4)\n"
        f"    server = GrpcServer(settings, {{{ECHO!r}: lambda m, _: m}}, name='x', log=structlog.get_logger())\n"
        "    await server.start()\n"
        "    print(server.port, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.to_thread(subprocess.Popen, [sys.executable, program], stdout=subprocess.PIPE, text=True)
    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        before = peak_memory(process.pid)
        caught = await failure(port, bytes(200 * 2**20), compression=grpc.Compression.Gzip, timeout=120)
        assert caught.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_memory(process.pid) - before < 20 * 2**20
        assert await call(port, b"still here") == b"still here"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def peak_memory(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def frame(kind, flags, stream, payload=b""):
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def opening(encoding="identity"):
    """The preface, settings, and the headers of a call, each a literal (RFC 7541, 6.2.2)."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "x"), ("te", "trailers")]
    headers += [("content-type", "application/grpc"), ("grpc-encoding", encoding)]
    literals = [b"\x00" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in headers]
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, b"".join(literals))


async def raw_call(port, message, encoding="gzip"):
    """Send `message` with its gRPC prefix in a call, and return the bytes of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(opening(encoding) + frame(0, 1, 1, message))
    seen = b""
    async with asyncio.timeout(60):
        while b"grpc-status" not in seen and (data := await reader.read(65536)):
            seen += data
    writer.close()
    return seen


async def test_clients_that_send_no_message_hold_nobody_up():
    async with serving() as server:
        writers = [(await asyncio.open_connection("127.0.0.1", server.port))[1] for _ in range(50)]
        for writer in writers:
            writer.write(opening() + frame(0, 0, 1, b"\x00\x00\x00\x00\x64half"))
            await writer.drain()
        assert await call(server.port, timeout=20) == b"hello", "before the others are timed out"
        for writer in writers:
            writer.close()


async def test_bytes_that_are_no_gzip_fail_that_call_alone():
    body = zlib.compress(b"span")[:-3] + b"\xff\xff\xff"
    async with serving() as server:
        answer = await raw_call(server.port, b"\x01" + len(body).to_bytes(4, "big") + body)
        assert b"grpc-status" in answer
        assert await call(server.port, b"still here") == b"still here"


async def test_an_unknown_encoding_fails_that_call_alone():
    async with serving() as server:
        answer = await raw_call(server.port, b"\x01\x00\x00\x00\x01x", encoding="brotli")
        assert b"grpc-status\x0212" in answer  # UNIMPLEMENTED
        assert b"grpc-accept-encoding\x1didentity, gzip, deflate, zstd" in answer
        assert await call(server.port, b"still here") == b"still here"


async def test_garbage_on_the_port_harms_nobody(capfd):
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + b"\x00" * 1000)
        assert b"HTTP/1.1 " not in await reader.read(1000)
        writer.close()
        assert await call(server.port) == b"hello"
    assert capfd.readouterr().err == ""


async def test_a_client_that_leaves_does_not_cancel_the_handlers_work():
    begun, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    def slow(_message, _metadata):
        begun.set()
        return answer

    async with serving(slow) as server:
        assert await give_up(server.port, begun.is_set) is grpc.StatusCode.CANCELLED
        assert not answer.cancelled()
        answer.set_result(b"")


async def test_at_most_so_many_calls_at_once_on_a_connection():
    under_way = [0, 0]

    def slow(_message, _metadata):
        under_way[0] += 1
        under_way[1] = max(under_way)
        future = asyncio.get_running_loop().create_future()

        def finish():
            under_way[0] -= 1
            future.set_result(b"")

        asyncio.get_running_loop().call_later(0.02, finish)
        return future

    async with (
        serving(slow, max_concurrent_streams=2) as server,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        calls = [channel.unary_unary(ECHO)(b"", timeout=60) for _ in range(8)]
        codes = {await each.code() for each in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert under_way[1] <= 2


async def test_an_old_connection_is_closed_and_made_again():
    keepalive = {
        "server_parameters": {"max_connection_age": "1s", "max_connection_age_grace": "1s", "time": "10s"},
        "enforcement_policy": {"min_time": "10s", "permit_without_stream": True},
    }
    async with serving(keepalive=keepalive) as server, aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        await channel.unary_unary(ECHO)(b"", timeout=60)
        async with asyncio.timeout(60):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await channel.unary_unary(ECHO)(b"", timeout=60)


def test_on_uvloop_with_many_calls_and_no_word_from_the_loop():
    complaints = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with (
            serving(max_concurrent_streams=256) as server,
            aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            echoed = await asyncio.gather(*(channel.unary_unary(ECHO)(bytes([n]), timeout=60) for n in range(200)))
            assert echoed == [bytes([n]) for n in range(200)]

    uvloop.run(main())
    assert complaints == []
