"""Our client against grpcio's own server."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.config import blocks
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, StartError, TooLargeError
from otelwp_agent.model.batch import Origin
from otelwp_agent.transport.authentication import ClientAuthenticator
from otelwp_agent.transport.grpc_client import GrpcClient
from otelwp_agent.transport.grpc_runtime import aio, grpc
from tests.kit.certificates import Authority

ECHO = "/test.Service/Echo"


class Peer(grpc.GenericRpcHandler):
    """Echoes, keeps what it saw, and fails as it is told."""

    def __init__(self):
        self.metadata = []
        self.fail = None
        self.connections = set()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.echo) if details.method == ECHO else None

    async def echo(self, message, context):
        self.metadata.append(dict(context.invocation_metadata()))
        self.connections.add(context.peer())
        if self.fail is not None:
            await self.fail(context)
        return message


@contextlib.asynccontextmanager
async def peer(address="127.0.0.1:0", credentials=None, **options):
    handler = Peer()
    options = [(f"grpc.{name}", value) for name, value in {"so_reuseport": 0, **options}.items()]
    server = aio.server(handlers=[handler], options=options)
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    handler.endpoint = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    try:
        yield handler
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def client(endpoint, authenticator=None, **settings):
    settings.setdefault("tls", {"insecure": True})
    made = GrpcClient(
        blocks.GrpcClient(endpoint=endpoint, **settings),
        name="exporters/test",
        log=structlog.get_logger(),
        authenticator=authenticator,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


def server_credentials(pair, ca_file=None):
    key, chain = Path(pair.key_file).read_bytes(), Path(pair.cert_file).read_bytes()
    roots = Path(ca_file).read_bytes() if ca_file else None
    return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=ca_file is not None)


async def test_sends_and_gets_bytes():
    async with peer() as other, client(other.endpoint) as ours:
        assert await ours.call(ECHO, b"\x00\x01") == b"\x00\x01"
        assert await ours.call(ECHO, b"") == b""
        assert await asyncio.gather(*(ours.call(ECHO, bytes([n])) for n in range(20))) == [
            bytes([n]) for n in range(20)
        ]
        assert len(other.connections) == 1


async def test_headers_authority_and_user_agent():
    headers = {"X-Tenant": "shop", "x-key-bin": "secret"}
    async with peer() as other, client(other.endpoint, headers=headers, user_agent="otelwp/1", authority="x.y") as ours:
        await ours.call(ECHO, b"")
    seen = other.metadata[0]
    assert seen["x-tenant"] == "shop"
    assert seen["x-key-bin"] == b"secret"
    assert seen["user-agent"].startswith("otelwp/1 ")


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
async def test_compression(compression):
    # The peer takes 1000 bytes, which the limit is checked against before inflating as well as after: so only what it
    # says of the encoding tells.
    body = b"span" * 1000
    async with peer() as other, client(other.endpoint, compression=compression) as ours:
        sent = await count_bytes(ours, other, body)
    assert (sent < 1000) == (compression != "none")


async def count_bytes(ours, other, body):
    """Return how many bytes the client writes for `body`, counted by a proxy between the two."""
    host, port = other.endpoint.split(":")
    sent = 0

    async def forward(reader, writer, *, counted):
        nonlocal sent
        while data := await reader.read(65536):
            sent += len(data) * counted
            writer.write(data)
            await writer.drain()
        writer.close()

    async def proxy(reader, writer):
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(forward(reader, there[1], counted=True), forward(there[0], writer, counted=False))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    settings = ours.settings.model_copy(update={"endpoint": type(ours.settings.endpoint)(address_of(server))})
    through = GrpcClient(settings, name="exporters/test", log=ours.log)
    await through.start()
    assert await through.call(ECHO, body) == body
    await through.aclose()
    server.close()
    await server.wait_closed()
    return sent


def address_of(server):
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, RetryableError),
        (grpc.StatusCode.ABORTED, RetryableError),
        (grpc.StatusCode.INVALID_ARGUMENT, MalformedError),
        (grpc.StatusCode.PERMISSION_DENIED, PermanentError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, PermanentError),
    ],
)
async def test_statuses_become_our_errors(code, kind):
    async with peer() as other, client(other.endpoint) as ours:
        other.fail = lambda context: context.abort(code, "because")
        with pytest.raises(kind, match="because"):
            await ours.call(ECHO, b"")
        other.fail = None
        assert await ours.call(ECHO, b"again") == b"again"


async def test_retry_info_makes_resource_exhausted_worth_trying_again():
    status = Status(code=8)
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=3)))
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    async with peer() as other, client(other.endpoint) as ours:
        other.fail = lambda context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailer)
        with pytest.raises(Overloaded) as caught:
            await ours.call(ECHO, b"")
    assert caught.value.retry_after == 3


async def test_a_message_larger_than_the_peer_takes_may_be_sent_in_parts():
    async with peer(max_receive_message_length=1000) as other, client(other.endpoint) as ours:
        with pytest.raises(TooLargeError):
            await ours.call(ECHO, bytes(2000))


async def test_an_unknown_method_is_permanent():
    async with peer() as other, client(other.endpoint) as ours:
        with pytest.raises(PermanentError, match="UNIMPLEMENTED"):
            await ours.call("/test.Service/Nothing", b"")


async def test_a_peer_that_does_not_answer_in_time():
    async with peer() as other, client(other.endpoint, timeout="100ms") as ours:
        other.fail = lambda _: asyncio.sleep(10)
        with pytest.raises(RetryableError, match="DEADLINE_EXCEEDED"):
            await ours.call(ECHO, b"")


async def test_a_peer_that_is_not_there_and_comes_back():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    async with client(address) as ours:
        with pytest.raises(RetryableError, match="UNAVAILABLE"):
            await ours.call(ECHO, b"")
        for _ in range(2):
            async with peer(address), asyncio.timeout(60):
                while True:
                    with contextlib.suppress(RetryableError):
                        assert await ours.call(ECHO, b"back") == b"back"
                        break
                    await asyncio.sleep(0.05)
            with pytest.raises(RetryableError, match="UNAVAILABLE"):
                await ours.call(ECHO, b"")


async def test_unix_socket(tmp_path):
    address = f"unix:{tmp_path}/peer.sock"
    async with peer(address), client(f"unix://{tmp_path}/peer.sock") as ours:
        assert await ours.call(ECHO, b"hi") == b"hi"


@pytest.mark.parametrize(("scheme", "secure"), [("http://", False), ("https://", True), ("", True), ("dns:///", True)])
async def test_the_endpoints_scheme_decides_on_tls(tmp_path, scheme, secure):
    authority = Authority(tmp_path)
    credentials = server_credentials(authority.sign()) if secure else None
    tls = {"ca_file": authority.ca_file}
    async with peer(credentials=credentials) as other, client(scheme + other.endpoint, tls=tls) as ours:
        assert await ours.call(ECHO, b"hi") == b"hi"


async def test_tls_verifies_the_peer(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    async with peer(credentials=server_credentials(authority.sign())) as other:
        for tls in ({"ca_file": stranger.ca_file}, {}, {"ca_file": authority.ca_file, "server_name_override": "wrong"}):
            async with client(other.endpoint, tls=tls) as ours:
                with pytest.raises(RetryableError, match="UNAVAILABLE"):
                    await ours.call(ECHO, b"")
        tls = {"ca_file": authority.ca_file, "server_name_override": "localhost", "include_system_ca_certs_pool": True}
        async with client(other.endpoint, tls=tls) as ours:
            assert await ours.call(ECHO, b"hi") == b"hi"


async def test_mutual_tls(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.sign("client")
    async with peer(credentials=server_credentials(authority.sign(), authority.ca_file)) as other:
        tls = {"ca_file": authority.ca_file}
        async with client(other.endpoint, tls=tls) as ours:
            with pytest.raises(RetryableError, match="UNAVAILABLE"):
                await ours.call(ECHO, b"")
        async with client(other.endpoint, tls={**tls, "cert_file": pair.cert_file, "key_file": pair.key_file}) as ours:
            assert await ours.call(ECHO, b"hi") == b"hi"


async def test_a_new_authority_is_trusted_after_the_file_changed(tmp_path):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(old.ca_file).read_bytes())
    tls = {"ca_file": str(trusted), "reload_interval": "20ms"}
    async with peer(credentials=server_credentials(new.sign())) as other, client(other.endpoint, tls=tls) as ours:
        with pytest.raises(RetryableError):
            await ours.call(ECHO, b"")
        trusted.write_bytes(b"rubbish")
        with structlog.testing.capture_logs() as logs:
            await until(lambda: logs)
            assert logs[0]["event"] == "certificate not reloaded; the old one stays"
            trusted.write_bytes(Path(new.ca_file).read_bytes())
            await until(lambda: "certificate reloaded" in str(logs))
        assert await ours.call(ECHO, b"hi") == b"hi"


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls": {"insecure_skip_verify": True}}, "exporters/test: tls: gRPC always verifies the server"),
        ({"tls": {"ca_file": "/none.pem"}}, r"exporters/test: tls: ca_file /none\.pem does not exist"),
        ({"headers": {"bad name": "x"}}, "exporters/test: headers: 'bad name' is not a valid name for gRPC metadata"),
        ({"headers": {"grpc-timeout": "x"}}, "exporters/test: headers: 'grpc-timeout' is not a valid name"),
        ({"headers": {"key": "geheim\n"}}, "exporters/test: headers: the value of 'key' contains characters"),
    ],
)
async def test_what_cannot_work_fails_the_start(settings, message):
    with pytest.raises(StartError, match=message) as caught:
        async with client("127.0.0.1:1", **settings):
            pass
    assert "geheim" not in str(caught.value)


async def test_close_without_start_twice_and_with_calls_under_way():
    made = GrpcClient(blocks.GrpcClient(endpoint="127.0.0.1:1"), name="exporters/test", log=structlog.get_logger())
    await made.aclose()
    with pytest.raises(RuntimeError, match="not started"):
        await made.call(ECHO, b"")
    async with peer() as other, client(other.endpoint, keepalive={"time": "10s", "timeout": "1s"}) as ours:
        other.fail = lambda _: asyncio.sleep(10)
        calling = asyncio.create_task(ours.call(ECHO, b""))
        await until(lambda: other.metadata)
        await ours.aclose()
        await ours.aclose()
        with pytest.raises((RetryableError, asyncio.CancelledError)):
            await calling


# --- credentials ---


class Tokens(ClientAuthenticator):
    def __init__(self, *tokens):
        self.tokens = [*tokens]

    def headers(self, origin, given):
        assert origin.tenant == "shop"
        return (("authorization", self.tokens[0]),)

    def rejected(self, headers):
        del self.tokens[0]
        return bool(self.tokens)


async def test_the_credential_replaces_configured_metadata_and_a_refused_one_is_retried_if_there_is_another():
    origin = Origin("otlp", "grpc", "shop")

    async def refuse(context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    headers = {"authorization": "configured", "x-shop": "a"}
    async with peer() as other, client(other.endpoint, authenticator=Tokens("one", "two"), headers=headers) as ours:
        assert await ours.call(ECHO, b"x", origin) == b"x"
        assert (other.metadata[0]["authorization"], other.metadata[0]["x-shop"]) == ("one", "a")
        other.fail = refuse
        with pytest.raises(RetryableError, match="has refused the credential"):
            await ours.call(ECHO, b"x", origin)
        with pytest.raises(PermanentError, match="UNAUTHENTICATED"):
            await ours.call(ECHO, b"x", origin)
    assert [each["authorization"] for each in other.metadata] == ["one", "one", "two"]
