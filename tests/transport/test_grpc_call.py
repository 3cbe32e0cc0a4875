"""Admission of calls, and the statuses of refused ones."""

import asyncio
from pathlib import Path

import pytest
from google.rpc.error_details_pb2 import RetryInfo

from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.transport.grpc_runtime import grpc
from tests.kit.agent import free_port
from tests.kit.certificates import Authority
from tests.kit.gates import Keys, Limiter, Names, gate, shop
from tests.kit.grpc_peer import ECHO, call, failure, give_up, make, serving, status_of

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
        begun = lambda: limiter.in_progress  # noqa: E731
        assert await give_up(server.port, begun, metadata=KEY) is grpc.StatusCode.CANCELLED
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


@pytest.mark.parametrize(
    ("full_for", "code"),
    [("shop", grpc.StatusCode.RESOURCE_EXHAUSTED), ("", grpc.StatusCode.UNAVAILABLE)],
)
async def test_a_tenant_sees_whether_it_is_the_cause_of_a_refusal(full_for, code):
    def refuse(*_):
        raise Overloaded("full", tenant=full_for)

    async with serving(refuse, gate=gate(Keys(right=shop()))) as server:
        assert (await failure(server.port, metadata=KEY)).code() is code
