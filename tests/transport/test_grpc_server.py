"""A real server on loopback, called by grpcio's own client, which shares nothing with ours but the library."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import structlog
import uvloop
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.config import blocks
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, StartError
from otelwp_agent.transport.grpc_runtime import aio, grpc
from otelwp_agent.transport.grpc_server import GrpcServer
from tests.kit.agent import free_port
from tests.kit.certificates import Authority
from tests.kit.gates import Keys, Limiter, Names, gate, shop

ECHO = "/test.Service/Echo"


def echo(message, _metadata):
    return message


def make(handler=echo, name="receivers/test", methods=None, gate=None, on_refused=lambda _: None, **settings):
    settings = {"endpoint": "127.0.0.1:0", **settings}
    log = structlog.get_logger()
    return GrpcServer(
        blocks.GrpcServer(**settings), methods or {ECHO: handler}, name=name, log=log, gate=gate, on_refused=on_refused
    )


@contextlib.asynccontextmanager
async def serving(*args, **settings):
    server = make(*args, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.shutdown(grace=1)


async def call(target, message=b"hello", method=ECHO, *, credentials=None, compression=None, **options):
    target = f"127.0.0.1:{target}" if isinstance(target, int) else target
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    if credentials is None:
        channel = aio.insecure_channel(target, own, compression)
    else:
        channel = aio.secure_channel(target, credentials, own, compression)
    async with channel:
        return await channel.unary_unary(method)(message, timeout=options.pop("timeout", 5), **options)


async def failure(*args, **options):
    with pytest.raises(aio.AioRpcError) as caught:
        await call(*args, **options)
    return caught.value


def status_of(error):
    return Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


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
        caught = await failure(port, bytes(200 * 2**20), compression=grpc.Compression.Gzip, timeout=30)
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
    async with asyncio.timeout(5):
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
        assert await call(server.port, timeout=2) == b"hello"
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
        assert b"grpc-status\x0213" in answer  # INTERNAL, where the specification has UNIMPLEMENTED: grpcio's choice
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
        caught = await failure(server.port, timeout=0.1)
        assert caught.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert begun.is_set()
        assert not answer.cancelled()
        answer.set_result(b"")


async def test_a_port_that_somebody_serves_is_refused():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=rf"receivers/test: cannot listen on 127.0.0.1:{port}: it is in use"):
            await make(endpoint=f"127.0.0.1:{port}").start()


async def test_two_components_do_not_share_a_port():
    async with serving(name="receivers/one") as one:
        with pytest.raises(StartError, match=r"receivers/two: cannot listen on .*: receivers/one already does"):
            await make(name="receivers/two", endpoint=f"127.0.0.1:{one.port}").start()
        assert await call(one.port) == b"hello"


async def test_a_host_that_is_not_ours_is_refused():
    with pytest.raises(StartError, match=r"receivers/test: cannot listen on 192\.0\.2\.1:4317: this machine does not"):
        await make(endpoint="192.0.2.1:4317").start()


async def test_localhost_is_all_of_its_addresses():
    async with serving(endpoint="localhost:0") as server:
        assert await call(server.port) == b"hello"
        assert await call(f"localhost:{server.port}") == b"hello"


async def test_shutdown_works_before_start_and_twice():
    server = make()
    await server.shutdown()
    await server.start()
    await server.shutdown()
    await server.shutdown()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


async def test_shutdown_lets_calls_end():
    begun, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    def slow(_message, _metadata):
        begun.set()
        return answer

    server = make(slow)
    await server.start()
    calling = asyncio.create_task(call(server.port))
    await begun.wait()
    stopping = asyncio.create_task(server.shutdown(grace=5))
    asyncio.get_running_loop().call_later(0.05, answer.set_result, b"done")
    assert await calling == b"done"
    await stopping


async def test_shutdown_gives_up_on_calls_after_the_grace():
    begun = asyncio.Event()

    def never(_message, _metadata):
        begun.set()
        return asyncio.get_running_loop().create_future()

    server = make(never)
    await server.start()
    calling = asyncio.create_task(failure(server.port))
    await begun.wait()
    async with asyncio.timeout(3):
        await server.shutdown(grace=0.05)
        await calling


@pytest.mark.parametrize("changed", [{}, {"max_recv_msg_size_mib": 7}], ids=["same settings", "other settings"])
async def test_a_replacement_takes_over_without_refusing_anybody(changed):
    first = make(lambda *_: b"0")
    await first.start()
    fixed = {"endpoint": f"127.0.0.1:{first.port}"}
    await first.shutdown()
    server = make(lambda *_: b"0", **fixed)
    await server.start()
    port, stop, answers, refused = server.port, asyncio.Event(), [], []

    async def load(*, reconnect):
        async with aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            while not stop.is_set():
                try:
                    answers.append(await (call(port) if reconnect else channel.unary_unary(ECHO)(b"", timeout=5)))
                except aio.AioRpcError as error:
                    refused.append(error.code())

    loads = [asyncio.create_task(load(reconnect=reconnect)) for reconnect in (False, True)]
    for turn in range(1, 21):
        options = changed if turn % 2 else {}
        successor = make(lambda *_, turn=turn: str(turn).encode(), **fixed, **options)
        await successor.start()
        await asyncio.sleep(0.01)
        await server.shutdown(grace=1)
        server = successor
        assert await call(port) == str(turn).encode()
    stop.set()
    await asyncio.gather(*loads)
    await server.shutdown()
    assert len(answers) > 20
    if changed:  # grpcio cannot stop listening and go on serving: senders that meet that instant send again
        assert set(refused) <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        assert len(refused) <= 20
    else:
        assert not refused


async def test_a_replacement_that_is_given_up_leaves_the_old_one_serving():
    async with serving(lambda *_: b"old") as server:
        for options in ({}, {"max_recv_msg_size_mib": 7}):
            # The port was chosen at the start, so only a fixed one can be replaced.
            successor = make(lambda *_: b"new", endpoint=f"127.0.0.1:{server.port}", **options)
            await successor.start()
            await successor.shutdown()
            assert await call(server.port) == b"old"


async def test_a_replacement_of_itself_may_widen_its_address():
    async with serving() as server, serving(endpoint=f"0.0.0.0:{server.port}") as wider:
        assert wider.port == server.port


async def test_what_it_replaces_waits_for_its_own_calls():
    begun, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    def slow(_message, _metadata):
        begun.set()
        return answer

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = make(slow, endpoint=f"127.0.0.1:{port}")
    await server.start()
    calling = asyncio.create_task(call(port))
    await begun.wait()
    async with serving(lambda *_: b"new", endpoint=f"127.0.0.1:{port}"):
        stopping = asyncio.create_task(server.shutdown(grace=5))
        assert await call(port) == b"new"
        assert not stopping.done()
        answer.set_result(b"old")
        assert await calling == b"old"
        await stopping


async def test_a_unix_socket_has_its_mode_and_is_removed(tmp_path):
    path = tmp_path / "grpc.sock"
    async with serving(endpoint=f"unix://{path}") as server:
        assert server.port == 0
        assert await call(f"unix:{path}") == b"hello"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert list(tmp_path.iterdir()) == []


async def test_a_unix_socket_that_somebody_answers_is_refused_and_a_stale_one_replaced(tmp_path):
    path = tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(StartError, match="it is in use"):
            await make(endpoint=f"unix://{path}").start()
        assert path.exists()
    async with serving(endpoint=f"unix://{path}"):
        assert await call(f"unix:{path}") == b"hello"


async def test_a_unix_socket_survives_its_replacement(tmp_path):
    path = tmp_path / "grpc.sock"
    endpoint = f"unix://{path}"
    old = make(lambda *_: b"old", endpoint=endpoint)
    await old.start()
    given_up = make(lambda *_: b"given up", endpoint=endpoint, max_recv_msg_size_mib=7)
    await given_up.start()
    assert await call(f"unix:{path}") == b"given up"
    await given_up.shutdown()
    assert await call(f"unix:{path}") == b"old"
    new = make(lambda *_: b"new", endpoint=endpoint, max_recv_msg_size_mib=8)
    await new.start()
    await old.shutdown()
    assert await call(f"unix:{path}") == b"new"
    await new.shutdown()
    assert list(tmp_path.iterdir()) == []


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
        calls = [channel.unary_unary(ECHO)(b"", timeout=5) for _ in range(8)]
        codes = {await each.code() for each in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert under_way[1] <= 2


async def test_an_old_connection_is_closed_and_made_again():
    keepalive = {
        "server_parameters": {"max_connection_age": "1s", "max_connection_age_grace": "1s", "time": "10s"},
        "enforcement_policy": {"min_time": "10s", "permit_without_stream": True},
    }
    async with serving(keepalive=keepalive) as server, aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        await channel.unary_unary(ECHO)(b"", timeout=5)
        async with asyncio.timeout(5):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await channel.unary_unary(ECHO)(b"", timeout=5)


# TLS


def client_credentials(authority, pair=None):
    key = Path(pair.key_file).read_bytes() if pair else None
    chain = Path(pair.cert_file).read_bytes() if pair else None
    return grpc.ssl_channel_credentials(Path(authority.ca_file).read_bytes(), key, chain)


def tls_of(pair, **settings):
    return {"cert_file": pair.cert_file, "key_file": pair.key_file, **settings}


async def test_tls(tmp_path, capfd):
    authority = Authority(tmp_path)
    async with serving(tls=tls_of(authority.sign())) as server:
        assert await call(server.port, credentials=client_credentials(authority)) == b"hello"
        assert (await failure(server.port, timeout=1)).code() is grpc.StatusCode.UNAVAILABLE
        stranger = Authority(tmp_path, "stranger")
        caught = await failure(server.port, credentials=client_credentials(stranger))
        assert caught.code() is grpc.StatusCode.UNAVAILABLE
    assert capfd.readouterr().err == ""


async def test_mutual_tls_refuses_who_has_no_certificate_or_a_strangers(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server_pair, client_pair = authority.sign(), authority.sign("client")
    async with serving(tls=tls_of(server_pair, client_ca_file=authority.ca_file)) as server:
        assert await call(server.port, credentials=client_credentials(authority, client_pair)) == b"hello"
        for pair in (None, stranger.sign("wrong")):
            caught = await failure(server.port, credentials=client_credentials(authority, pair))
            assert caught.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("how", ["reload_tls", "replacement", "reload_interval"])
async def test_a_new_certificate_is_used_after_a_reload(tmp_path, how):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    tls = tls_of(old.sign(file="server"), reload_interval="20ms" if how == "reload_interval" else "0s")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    async with serving(tls=tls, endpoint=endpoint) as server:
        assert await call(server.port, credentials=client_credentials(old)) == b"hello"
        with structlog.testing.capture_logs() as logs:
            new.sign(file="server")
            if how == "reload_tls":
                server.reload_tls()
            elif how == "replacement":
                await make(tls=tls, endpoint=endpoint).start()
            async with asyncio.timeout(5):
                while how == "reload_interval" and "certificate reloaded" not in str(logs):
                    await asyncio.sleep(0.01)
        assert await call(server.port, credentials=client_credentials(new)) == b"hello"
        assert (await failure(server.port, credentials=client_credentials(old))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_bad_certificate_at_a_reload_leaves_the_old_one(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign()
    async with serving(tls=tls_of(pair, reload_interval="20ms")) as server:
        with structlog.testing.capture_logs() as logs:
            Path(pair.cert_file).write_text("rubbish")
            with pytest.raises(StartError, match=r"receivers/test: tls: cert_file .*\.pem contains no PEM certificate"):
                server.reload_tls()
            os.utime(pair.cert_file, (1, 1))
            async with asyncio.timeout(5):
                while not logs:
                    await asyncio.sleep(0.01)
        assert logs[0]["event"] == "certificate not reloaded; the old one stays"
        assert await call(server.port, credentials=client_credentials(authority)) == b"hello"


async def test_what_grpcio_cannot_honour_is_refused(tmp_path):
    pair = Authority(tmp_path).sign()
    with pytest.raises(StartError, match=r"receivers/test: tls: gRPC cannot refuse TLS 1\.2"):
        await make(tls=tls_of(pair, min_version="1.3")).start()


def test_on_uvloop_with_many_calls_and_no_word_from_the_loop():
    complaints = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with (
            serving(max_concurrent_streams=256) as server,
            aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            echoed = await asyncio.gather(*(channel.unary_unary(ECHO)(bytes([n]), timeout=5) for n in range(200)))
            assert echoed == [bytes([n]) for n in range(200)]

    uvloop.run(main())
    assert complaints == []


# --- authentication and limits ---

KEY = (("x-api-key", "right"),)


async def test_the_right_key_is_accepted_and_the_handler_gets_the_client_but_no_secret():
    seen, client = [], shop()
    async with serving(lambda _, caller: seen.append(caller) or b"", gate=gate(Keys(right=client))) as server:
        await call(server.port, metadata=(*KEY, ("x-shop", "a")))
    (caller,) = seen
    assert caller.client is client
    assert (caller.metadata["x-shop"], "x-api-key" in caller.metadata) == ("a", False)
    assert caller.origin("otlp").tenant == "shop"


@pytest.mark.parametrize("metadata", [(), (("x-api-key", "wrong"),)])
async def test_a_wrong_key_is_unauthenticated_before_the_message_is_read(metadata):
    seen, refused = [], []
    keys = Keys(right=shop())
    async with serving(
        lambda *_: seen.append(1) or b"", gate=gate(keys), on_refused=refused.append, max_recv_msg_size_mib=1
    ) as server:
        error = await failure(server.port, b"x" * 900_000, metadata=metadata)
        assert await call(server.port, metadata=KEY) == b""
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == "a valid credential is needed"
    assert status_of(error).details == [], "it must not be retried"
    assert (seen, refused) == ([1], ["unauthenticated"])
    assert {peer for peer, _ in keys.asked} == {"127.0.0.1"}


async def test_another_tenant_and_a_ban_are_permission_denied():
    limiter = Limiter()
    async with serving(gate=gate(Keys(right=shop()), limiter)) as server:
        error = await failure(server.port, metadata=(*KEY, ("x-customer-id", "other")))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        limiter.banned.add("127.0.0.1")
        assert (await failure(server.port, metadata=KEY)).code() is grpc.StatusCode.PERMISSION_DENIED
    assert limiter.failures == [("127.0.0.1", "tenant_mismatch")]


async def test_calls_in_progress_are_counted_and_each_is_released_once():
    limiter, late = Limiter(most=1), asyncio.get_running_loop().create_future()
    async with serving(lambda *_: late, gate=gate(Keys(right=shop()), limiter)) as server:
        first = asyncio.ensure_future(call(server.port, metadata=KEY))
        while not limiter.began:
            await asyncio.sleep(0.001)  # the call passes through threads of grpcio, which no event of ours reports
        error = await failure(server.port, metadata=KEY)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = RetryInfo()
        assert status_of(error).details[0].Unpack(retry)
        assert retry.retry_delay.seconds == 7
        late.set_result(b"done")
        assert await first == b"done"
    assert (limiter.in_progress, limiter.ended) == (0, 1)
    assert limiter.began == [("shop", "127.0.0.1", ECHO)]


async def test_a_cancelled_call_and_a_bug_are_released():
    limiter, late = Limiter(), asyncio.get_running_loop().create_future()
    answers = iter([lambda: late, lambda: 1 / 0])
    async with serving(lambda *_: next(answers)(), gate=gate(Keys(right=shop()), limiter)) as server:
        error = await failure(server.port, metadata=KEY, timeout=0.2)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        late.set_result(b"")
        assert (await failure(server.port, metadata=KEY)).code() is grpc.StatusCode.INTERNAL
    assert (limiter.in_progress, limiter.ended) == (0, 2)


async def test_the_certificate_of_a_client_decides(tmp_path):
    authority = Authority(tmp_path)
    own, names = authority.sign(), Names(shop=shop())
    tls = {"cert_file": own.cert_file, "key_file": own.key_file, "client_ca_file": authority.ca_file}

    def credentials(name):
        pair = authority.sign(name, file=name)
        pem = [Path(file).read_bytes() for file in (authority.ca_file, pair.key_file, pair.cert_file)]
        return grpc.ssl_channel_credentials(*pem)

    async with serving(gate=gate(names), tls=tls) as server:
        assert await call(f"localhost:{server.port}", credentials=credentials("shop")) == b"hello"
        error = await failure(f"localhost:{server.port}", credentials=credentials("other"))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert [certificate.common_name for _, certificate in names.asked] == ["shop", "other"]
    assert "localhost" in names.asked[0][1].alternative_names


async def test_a_replacement_brings_its_own_gate():
    endpoint = f"127.0.0.1:{free_port()}"
    async with serving(gate=gate(Keys(right=shop())), endpoint=endpoint) as server:
        after = make(gate=gate(Keys(other=shop())), endpoint=endpoint)
        await after.start()
        try:
            assert (await failure(server.port, metadata=KEY)).code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call(server.port, metadata=(("x-api-key", "other"),)) == b"hello"
        finally:
            await after.shutdown(grace=1)


async def test_a_server_with_settings_for_a_gate_does_not_start_without_one():
    with pytest.raises(StartError, match=r"context\.gate"):
        await make(auth={"authenticator": "x"}).start()


async def test_an_old_connection_is_replaced_and_no_call_is_lost():
    keepalive = {"server_parameters": {"max_connection_age": "200ms", "max_connection_age_grace": "5s"}}
    async with serving(keepalive=keepalive) as server, aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for _ in range(3):
            assert await channel.unary_unary(ECHO)(b"hello", timeout=5) == b"hello"
            async with asyncio.timeout(20):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)  # the server sends GOAWAY
