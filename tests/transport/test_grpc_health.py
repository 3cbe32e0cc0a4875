"""The health service, called with grpcio."""

import pytest

from otelwp_agent.errors import MalformedError
from otelwp_agent.transport import grpc_health
from otelwp_agent.transport.grpc_runtime import grpc
from tests.kit.gates import Keys, gate, shop
from tests.kit.grpc_peer import call, failure, serving


def request(service):
    return b"\x0a" + bytes((len(service),)) + service.encode()


@pytest.mark.parametrize("message", [b"", request(""), request("test.Service")])
async def test_a_known_service_is_serving(message):
    async with serving() as server:
        assert await call(server.port, message, method=grpc_health.CHECK) == grpc_health.SERVING


async def test_probes_need_no_credential_and_other_services_are_not_found():
    async with serving(gate=gate(Keys(right=shop()))) as server:
        assert await call(server.port, b"", method=grpc_health.CHECK) == grpc_health.SERVING
        error = await failure(server.port, request("other.Service"), method=grpc_health.CHECK)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        error = await failure(server.port, b"\xff\xff", method=grpc_health.CHECK)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await failure(server.port, b"")).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_server_that_stops_is_not_serving():
    async with serving() as server:
        server.draining = True
        assert await call(server.port, b"", method=grpc_health.CHECK) == grpc_health.NOT_SERVING


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x0a\x80\x01" + b"a" * 128, b"\x10\x01"])
def test_a_malformed_request(message):
    with pytest.raises(MalformedError):
        grpc_health.service_of(message)


def test_the_services_of_methods():
    assert grpc_health.services_of(["/a.B/C", "/a.B/D", "/e.F/G"]) == {"", "a.B", "e.F"}
