"""Start, replacement and shutdown of a gRPC server, and its addresses."""

import asyncio
import socket
import stat

import pytest

from otelwp_agent.errors import StartError
from otelwp_agent.transport.grpc_runtime import aio, grpc
from tests.kit.agent import free_port
from tests.kit.grpc_peer import ECHO, call, failure, make, serving


async def test_a_port_that_somebody_serves_is_refused():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=rf"receivers/test: cannot listen on 127.0.0.1:{port}: it is in use"):
            await make(endpoint=f"127.0.0.1:{port}").start()


async def test_two_components_do_not_share_a_port():
    async with serving(name="receivers/one", endpoint=f"127.0.0.1:{free_port()}") as one:
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
    async with asyncio.timeout(60):
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
                    answers.append(await (call(port) if reconnect else channel.unary_unary(ECHO)(b"", timeout=60)))
                except aio.AioRpcError as error:
                    refused.append(error.code())

    loads = [asyncio.create_task(load(reconnect=reconnect)) for reconnect in (False, True)]
    for turn in range(1, 21):
        options = changed if turn % 2 else {}
        successor = make(lambda *_, turn=turn: str(turn).encode(), **fixed, **options)
        await successor.start()
        await asyncio.sleep(0.01)  # both serve for a moment, while calls arrive
        await server.shutdown(grace=1)
        server = successor
        assert await call(port) == str(turn).encode()
    stop.set()
    await asyncio.gather(*loads)
    await server.shutdown()
    assert len(answers) > 20
    assert not refused


async def test_a_replacement_that_is_given_up_leaves_the_old_one_serving():
    async with serving(lambda *_: b"old", endpoint=f"127.0.0.1:{free_port()}") as server:
        for options in ({}, {"max_recv_msg_size_mib": 7}):
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


async def test_an_old_connection_is_replaced_and_no_call_is_lost():
    keepalive = {"server_parameters": {"max_connection_age": "200ms", "max_connection_age_grace": "5s"}}
    async with serving(keepalive=keepalive) as server, aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for _ in range(3):
            assert await channel.unary_unary(ECHO)(b"hello", timeout=60) == b"hello"
            async with asyncio.timeout(60):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)  # the server sends GOAWAY
