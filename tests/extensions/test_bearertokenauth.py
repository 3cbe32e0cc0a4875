import asyncio
import os

import pytest
import structlog
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.errors import RetryableError, StartError, UnauthenticatedError
from otelwp_agent.extensions.bearertokenauth import FACTORY, Config
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.grpc_runtime import aio, grpc
from otelwp_agent.transport.watched_file import CHECK, MAX_FILE
from tests.kit.graphs import Running, until
from tests.kit.http_peer import HttpPeer, response


def make(**settings):
    return FACTORY.build(Config.model_validate(settings), make_context(Kind.EXTENSION, "bearertokenauth"))


def client(extension, value, header="authorization"):
    return extension.authenticate({} if value is None else {header: value}, "10.0.0.1", None)


def accepts(extension, value, header="authorization"):
    try:
        client(extension, value, header)
    except UnauthenticatedError:
        return False
    return True


# --- servers ---


def test_the_token_is_accepted_with_its_scheme_in_any_case():
    extension = make(token="s3cret")
    assert extension.secret_headers == {"authorization"}
    for value in ("Bearer s3cret", "bearer s3cret", "BEARER  s3cret "):
        assert accepts(extension, value)
    found = client(extension, "Bearer s3cret")
    assert (found.tenant, found.credential) == ("", "bearertokenauth#1")
    assert client(extension, "bearer s3cret") is found


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "s3cret",
        "Basic s3cret",
        "Bearer s3cre",
        "Bearer s3cretx",
        "Bearer S3cret",
        "Bearer s3cret s3cret",
        "Bearer s3cret, Bearer s3cret",
        "Bearer \u20ac\ud800",
        "Bearer " + "x" * 60_000,
    ],
)
def test_any_other_value_is_refused_with_one_message_and_a_challenge(value):
    with pytest.raises(UnauthenticatedError) as caught:
        client(make(token="s3cret"), value)
    assert (str(caught.value), caught.value.challenges) == ("a valid credential is needed", ("Bearer",))


def test_several_tokens_another_scheme_and_another_header():
    extension = make(tokens=["new", "old"], scheme="Token", header="X-Auth")
    assert [client(extension, f"token {name}", "x-auth").credential for name in ("new", "old")] == [
        "bearertokenauth#1",
        "bearertokenauth#2",
    ]
    assert not accepts(extension, "Bearer new", "x-auth")
    bare = make(token="new", scheme="", header="X-Auth")
    assert accepts(bare, "new", "x-auth")
    assert bare.headers(None, {}) == (("x-auth", "new"),)


# --- clients ---


def test_a_client_sends_the_first_token():
    extension = make(tokens=["new", "old"])
    assert extension.headers(None, {}) == (("authorization", "Bearer new"),)
    assert extension.rejected(extension.headers(None, {})) is False, "there is no other token"


# --- the file ---


@pytest.fixture
async def file_auth(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("one\n\n two \n")
    extension = make(filename=str(file))
    await extension.start()
    yield extension, file
    await extension.shutdown()


async def test_the_tokens_of_a_file_are_replaced_when_it_changes(file_auth):
    extension, file = file_auth
    assert [accepts(extension, f"Bearer {name}") for name in ("one", "two", "three", "")] == [True, True, False, False]
    version = extension.version
    file.write_text("three\n")
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(60):
            while extension.version == version:
                await asyncio.sleep(CHECK / 10)  # the file is checked by the clock of the event loop
    assert [accepts(extension, f"Bearer {name}") for name in ("one", "three")] == [False, True]
    assert extension.headers(None, {}) == (("authorization", "Bearer three"),)
    assert [(entry["event"], entry["tokens"]) for entry in logs] == [("file reloaded", 1)]


async def test_after_a_401_the_file_is_read_at_once(file_auth):
    extension, file = file_auth
    sent = extension.headers(None, {})
    assert extension.rejected(sent) is False
    file.write_text("newest\n")
    assert extension.rejected(sent) is True
    assert extension.headers(None, {}) == (("authorization", "Bearer newest"),)
    assert extension.rejected(sent) is True, "the request was sent with a token that has been replaced"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "contains no token"),
        (b" \n\n", "contains no token"),
        (b"good\nb\xc3\xa4d\n", "token 2: a token must have only printable ASCII characters"),
        (b"a\x00b\n", "token 1: a token must have only printable ASCII"),
        (b"x" * (MAX_FILE + 1), f"is larger than {MAX_FILE} bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_reported(file_auth, content, words):
    extension, file = file_auth
    version = extension.version
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(StartError, match=words):
        extension.refresh()
    assert (accepts(extension, "Bearer one"), extension.version) == (True, version)
    health = extension.health()
    assert not health.healthy
    assert words in health.message
    assert "b\u00e4d" not in health.message
    file.write_text("one\n")
    extension.refresh()
    assert extension.health().healthy
    fresh = make(filename=str(file))
    with pytest.raises(RetryableError, match="no token yet"):
        fresh.headers(None, {})


async def test_a_missing_file_fails_the_start(tmp_path):
    with pytest.raises(StartError, match=r"extensions/bearertokenauth: .*none: cannot be read"):
        await make(filename=os.fspath(tmp_path / "none")).start()


# --- the configuration ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no token is given: give `token`, `tokens` or `filename`"),
        ({"tokens": []}, "no token is given"),
        ({"token": "a", "tokens": ["b"]}, "`token` and `tokens` are given: remove one of them"),
        ({"token": "a", "filename": "/x"}, "`token` and `filename` are given"),
        ({"tokens": ["a", " "]}, "tokens: a token must not be empty"),
        ({"token": "a\nb"}, "token: a token must have only printable ASCII characters"),
        ({"token": "a", "header": "a b"}, "'a b' is not a header name"),
        ({"token": "a", "header": "Content-Length"}, "is written by the client itself"),
    ],
)
def test_invalid_settings_are_refused_without_quoting_a_token(settings, words):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    assert words in str(caught.value)


# --- with real receivers and exporters ---

RECEIVERS = """
receivers:
  otlp: {protocols: {http: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}}}
  zipkin: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}
  jaeger_json: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}
  jaeger:
    protocols:
      grpc: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}
      thrift_http: {endpoint: '127.0.0.1:0', auth: {authenticator: bearertokenauth}}
extensions: {bearertokenauth: {token: right}}
exporters: {sink: }
service:
  extensions: [bearertokenauth]
  pipelines: {traces: {receivers: [otlp, zipkin, jaeger_json, jaeger], exporters: [sink]}}
"""
ZIPKIN = b'[{"traceId": "0123456789abcdef", "id": "0123456789abcdef", "name": "one"}]'
JAEGER = b'{"spans": [{"traceId": "0123456789abcdef", "spanId": "0123456789abcdef", "operationName": "one"}]}'
OTLP = TracesData(resource_spans=[{"scope_spans": [{"spans": [{"name": "one"}]}]}]).SerializeToString()


async def post(port, path, body, kind, token):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nContent-Type: {kind}\r\n{line}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(60):
        status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


@pytest.mark.parametrize(
    ("receiver", "transport", "path", "body", "kind"),
    [
        ("otlp", "http", "/v1/traces", OTLP, "application/x-protobuf"),
        ("zipkin", "http", "/api/v2/spans", ZIPKIN, "application/json"),
        ("jaeger_json", "http", "/api/traces", JAEGER, "application/json"),
        ("jaeger", "thrift_http", "/api/traces", JAEGER, "application/json"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
async def test_every_http_receiver_authenticates(receiver, transport, path, body, kind):
    running = Running()
    await running.go(RECEIVERS)
    try:
        port = int(running.graph.receivers[ComponentId(receiver)].endpoints()[transport].rpartition(":")[2])
        assert [await post(port, path, body, kind, token) for token in (None, "wrong")] == [401, 401]
        assert await post(port, path, body, kind, "right") in {200, 202}
        await until(lambda: running.sink.batches)
        (batch,) = running.sink.batches
        assert (batch.origin.receiver, batch.origin.headers["content-type"]) == (receiver, kind)
        assert "authorization" not in batch.origin.headers
    finally:
        await running.stop()


async def test_the_grpc_receiver_of_jaeger_authenticates():
    running = Running()
    await running.go(RECEIVERS)
    try:
        address = running.jaeger.endpoints()["grpc"]
        async with aio.insecure_channel(address) as channel:
            call = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans")
            with pytest.raises(aio.AioRpcError) as caught:
                await call(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call(b"", timeout=10, metadata=(("authorization", "Bearer right"),)) == b""
    finally:
        await running.stop()


@pytest.mark.parametrize(
    "exporter",
    [
        "zipkin: {endpoint: 'http://127.0.0.1:%d'",
        "otlp_http: {endpoint: 'http://127.0.0.1:%d'",
        "jaeger: {protocol: thrift_http, endpoint: 'http://127.0.0.1:%d'",
        "jaeger: {protocol: otlp_http, endpoint: 'http://127.0.0.1:%d'",
    ],
)
async def test_every_http_exporter_adds_the_token(exporter):
    running = Running()
    async with HttpPeer(response("202 Accepted")) as peer:
        await running.go(f"""
receivers: {{hand: }}
exporters: {{{exporter % peer.port}, auth: {{authenticator: bearertokenauth}}}}}}
extensions: {{bearertokenauth: {{token: right}}}}
service:
  tier: pro
  extensions: [bearertokenauth]
  pipelines: {{traces: {{receivers: [hand], exporters: [{exporter.partition(":")[0]}]}}}}
""")
        body = TracesData(
            resource_spans=[{"scope_spans": [{"spans": [{"trace_id": b"1" * 16, "span_id": b"1" * 8, "name": "one"}]}]}]
        ).SerializeToString()
        receipt = Receipt(1)
        running.hand.next[Signal.TRACES].consume(Batch(Signal.TRACES, body, 1, Origin("hand", "hand"), ((receipt, 1),)))
        await until(lambda: receipt.pending == 0)
        await running.stop()
    assert [seen.headers["authorization"] for seen in peer.seen] == ["Bearer right"]


@pytest.mark.parametrize("exporter", ["otlp_grpc: {", "jaeger: {protocol: grpc, ", "jaeger: {protocol: otlp_grpc, "])
async def test_every_grpc_exporter_adds_the_token(exporter):
    seen = []

    class Backend(grpc.GenericRpcHandler):
        def service(self, details):
            seen.append(dict(details.invocation_metadata)["authorization"])

            async def accept(_message, _context):
                return b""

            return grpc.unary_unary_rpc_method_handler(accept)

    server = aio.server(handlers=[Backend()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = Running()
    await running.go(f"""
receivers: {{hand: }}
exporters: {{{exporter}endpoint: 'http://127.0.0.1:{port}', auth: {{authenticator: bearertokenauth}}}}}}
extensions: {{bearertokenauth: {{token: right}}}}
service:
  tier: pro
  extensions: [bearertokenauth]
  pipelines: {{traces: {{receivers: [hand], exporters: [{exporter.partition(":")[0]}]}}}}
""")
    receipt = running.hand.receive()
    await until(lambda: receipt.pending == 0)
    await running.stop()
    await server.stop(0)
    assert seen == ["Bearer right"]
