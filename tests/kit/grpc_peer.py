"""A gRPC server on loopback, and calls to it with the client of grpcio."""

import asyncio
import contextlib

import pytest
import structlog
from google.rpc.status_pb2 import Status

from otelwp_agent.config import blocks
from otelwp_agent.transport.grpc_runtime import aio
from otelwp_agent.transport.grpc_server import GrpcServer

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
        return await channel.unary_unary(method)(message, timeout=options.pop("timeout", 60), **options)


async def failure(*args, **options):
    with pytest.raises(aio.AioRpcError) as caught:
        await call(*args, **options)
    return caught.value


async def give_up(target, begun, **options):
    """Call, cancel the call as soon as `begun()` holds, and return its status code."""
    async with aio.insecure_channel(f"127.0.0.1:{target}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        calling = channel.unary_unary(ECHO)(b"hello", timeout=60, **options)
        while not begun():
            await asyncio.sleep(0.001)  # the call passes through threads of grpcio, which no event of ours reports
        calling.cancel()
        return await calling.code()


def status_of(error):
    return Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
