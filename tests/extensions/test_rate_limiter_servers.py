"""The responses of HTTP and gRPC servers whose requests the rate limiter refuses."""

import asyncio

import pytest
import structlog
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.config import blocks
from otelwp_agent.errors import UnauthenticatedError
from otelwp_agent.transport.authentication import ServerAuthenticator
from otelwp_agent.transport.gate import Gate
from otelwp_agent.transport.grpc_runtime import aio, grpc
from otelwp_agent.transport.grpc_server import GrpcServer
from otelwp_agent.transport.http_messages import Response, Route
from tests.kit.http_site import OK, Site, post
from tests.kit.rate_limits import ACME, OTHER, ROUTE, Limiter, requests


class Tokens(ServerAuthenticator):
    """Knows the clients by the header x-key."""

    secret_headers = frozenset({"x-key"})

    def __init__(self, **clients):
        self.clients = clients

    def authenticate(self, headers, peer, certificate):
        client = self.clients.get(headers.get("x-key"))
        if client is None:
            raise UnauthenticatedError
        return client


def gate(made):
    return Gate(Tokens(a=ACME, b=OTHER), [made.limiter], log=structlog.get_logger())


async def test_http_answers_429_with_the_headers_of_the_limit():
    made = Limiter(limits=[{"key": "tenant", "requests_per_second": 0.1, "burst": 2}])
    async with Site(gate=gate(made)) as site:
        client = await site.connect()
        client.send(post(extra="X-Key: a\r\n") * 4 + post(extra="X-Key: b\r\n"))
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        for _ in range(2):
            status, headers, body = await client.answer()
            assert status == 429
            assert headers["retry-after"] == "10"
            assert headers["x-ratelimit-limit"] == "2"
            assert headers["x-ratelimit-remaining"] == "0"
            assert headers["x-ratelimit-reset"] == "20"
            assert body == b"limit exceeded: 360 requests per hour for each tenant, burst 2\n"
        assert (await client.answer())[0] == 200
        await client.close()
        assert site.refusals == ["rate_limited"] * 2
        assert len(site.requests) == 3


async def test_http_answers_503_if_senders_take_429_as_permanent():
    made = Limiter(**requests(burst=1), throttle_status=503)
    async with Site(gate=gate(made)) as site:
        client = await site.connect()
        client.send(post(extra="X-Key: a\r\n") * 2)
        assert (await client.answer())[0] == 200
        status, headers, _ = await client.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        await client.close()


async def test_http_refuses_denied_and_banned_addresses_with_403():
    denied = Limiter(access={"deny": ["127.0.0.0/8"]})
    async with Site(gate=gate(denied)) as site:
        client = await site.connect()
        client.send(post(extra="X-Key: a\r\n"))
        assert (await client.answer())[0] == 403
        await client.close()
        assert site.refusals == ["denied_address"]
    banned = Limiter(ban={"failures": 3})
    async with Site(gate=gate(banned)) as site:
        client = await site.connect()
        client.send(post(extra="X-Key: a\r\n") + post(extra="X-Key: wrong\r\n") * 4 + post(extra="X-Key: a\r\n"))
        assert [(await client.answer())[0] for _ in range(6)] == [200, 401, 401, 401, 403, 403]
        await client.close()


async def test_requests_in_progress_end_with_their_answers_and_connections():
    made = Limiter(limits=[{"key": "tenant", "concurrent_requests": 1}])
    pending = asyncio.get_running_loop().create_future()
    answers = [pending]

    def handle(_request):
        return answers.pop() if answers else OK

    async with Site({ROUTE: Route(handle)}, gate=gate(made)) as site:
        first, second = await site.connect(), await site.connect()
        first.send(post(extra="X-Key: a\r\n"))
        async with asyncio.timeout(60):
            while answers:
                await asyncio.sleep(0)
        second.send(post(extra="X-Key: a\r\n"))
        assert (await second.answer())[0] == 429
        pending.set_result(Response(200))
        assert (await first.answer())[0] == 200
        second.send(post(extra="X-Key: a\r\n"))
        assert (await second.answer())[0] == 200
        first.send(post(extra="X-Key: a\r\n")[:-2])  # its body never arrives
        async with asyncio.timeout(60):
            while not len(made.limiter._limits.concurrency[0].requests):
                await asyncio.sleep(0)
        first.reset()
        async with asyncio.timeout(60):
            while len(made.limiter._limits.concurrency[0].requests):
                await asyncio.sleep(0)
        second.send(post(extra="X-Key: a\r\n"))
        assert (await second.answer())[0] == 200
        await second.close()


@pytest.mark.parametrize(
    ("status", "code"), [(429, grpc.StatusCode.RESOURCE_EXHAUSTED), (503, grpc.StatusCode.UNAVAILABLE)]
)
async def test_grpc_answers_with_the_exact_retry_info(status, code):
    made = Limiter(**requests(burst=1, requests_per_second=0.8), throttle_status=status)
    method = "/test.Service/Echo"
    server = GrpcServer(
        blocks.GrpcServer(endpoint="127.0.0.1:0"),
        {method: lambda message, _caller: message},
        name="receivers/test",
        log=structlog.get_logger(),
        gate=gate(made),
    )
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(method)
        assert await call(b"hello", metadata=(("x-key", "a"),)) == b"hello"
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"hello", metadata=(("x-key", "a"),))
    await server.shutdown()
    assert caught.value.code() is code
    assert caught.value.details() == "limit exceeded: 2880 requests per hour for each tenant, burst 1"
    details = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"]).details
    info = RetryInfo()
    assert details[0].Unpack(info)
    assert info.retry_delay.seconds + info.retry_delay.nanos / 1e9 == pytest.approx(1.25)
