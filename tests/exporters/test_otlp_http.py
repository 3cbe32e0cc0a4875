from __future__ import annotations

import asyncio
import time

import orjson
import pytest
import structlog
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent import __version__
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.exporters.otlp_http import FACTORY, Config, OtlpHttpExporter
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.sender import Sender
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost
from otelwp_agent.transport.compression import decompress
from tests.kit.certificates import Authority
from tests.kit.http_peer import HttpPeer, Seen, response

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def traces(*names: str) -> Batch:
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for name in names:
        spans.add(name=name, trace_id=bytes(16))
    receipt = Receipt(len(names))
    return Batch(Signal.TRACES, message.SerializeToString(), len(names), Origin(), [(receipt, len(names))])


def other(signal: Signal) -> Batch:
    """A batch of logs or metrics, as empty as it may be."""
    return Batch(signal, ExportLogsServiceRequest().SerializeToString(), 0, Origin(), [])


@pytest.fixture
async def exporter_of():
    """Return a started exporter with these settings; all are shut down in the end."""
    exporters = []

    async def make(**settings: object) -> OtlpHttpExporter:
        context = Context(
            ComponentId("otlp_http"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost()
        )
        exporter = FACTORY.build(Config(**settings), context)
        assert isinstance(exporter, OtlpHttpExporter)
        exporters.append(exporter)
        await exporter.start()
        return exporter

    yield make
    for exporter in exporters:
        await exporter.shutdown()
        await exporter.shutdown()


def url(peer: HttpPeer, path: str = "") -> str:
    return f"http://127.0.0.1:{peer.port}{path}"


async def test_posts_the_bytes_as_they_are(exporter_of):
    batch = traces("a", "b")
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=url(peer), compression="none")
        assert await exporter.export(batch) == 0
    seen = peer.seen[0]
    assert seen.line == "POST /v1/traces HTTP/1.1"
    assert seen.body == batch.body
    assert seen.headers["content-type"] == PROTOBUF
    assert seen.headers["user-agent"] == f"otelwp-agent/{__version__}"
    assert "content-encoding" not in seen.headers


@pytest.mark.parametrize(
    ("compression", "coding"),
    [("gzip", "gzip"), ("zstd", "zstd"), ("deflate", "deflate"), ("zlib", "deflate"), ("", None)],
)
async def test_compresses_as_configured(exporter_of, compression, coding):
    batch = traces(*["span"] * 100)
    async with HttpPeer() as peer:
        await (await exporter_of(endpoint=url(peer), compression=compression)).export(batch)
    seen = peer.seen[0]
    assert seen.headers.get("content-encoding") == coding
    assert decompress(coding or "", seen.body, 2**20) == batch.body
    assert coding is None or len(seen.body) < len(batch.body)


async def test_gzip_is_the_default_and_levels_count(exporter_of):
    batch = traces(*[f"span {number * 7919 % 1009}" for number in range(2000)])
    async with HttpPeer() as peer:
        await (await exporter_of(endpoint=url(peer))).export(batch)
        await (await exporter_of(endpoint=url(peer), compression_params={"level": 9})).export(batch)
    fast, small = peer.seen
    assert fast.headers["content-encoding"] == small.headers["content-encoding"] == "gzip"
    assert small.body != fast.body
    assert decompress("gzip", small.body, 2**20) == batch.body


async def test_json(exporter_of):
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=url(peer), encoding="json", compression="none")
        await exporter.export(traces("a"))
    seen = peer.seen[0]
    assert seen.headers["content-type"] == JSON
    span = orjson.loads(seen.body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["name"], span["traceId"]) == ("a", "0" * 32)


@pytest.mark.parametrize(
    ("base", "signal", "path"),
    [
        ("", Signal.METRICS, "/v1/metrics"),
        ("/", Signal.LOGS, "/v1/logs"),
        ("/otlp/", Signal.TRACES, "/otlp/v1/traces"),
        ("/a%20b/ü", Signal.TRACES, "/a%20b/%C3%BC/v1/traces"),
    ],
)
async def test_signals_have_their_paths_below_the_endpoint(exporter_of, base, signal, path):
    async with HttpPeer() as peer:
        batch = traces("a") if signal is Signal.TRACES else other(signal)
        await (await exporter_of(endpoint=url(peer, base))).export(batch)
    assert peer.seen[0].path == path


@pytest.mark.parametrize("path", ["/", "/in/", "/in?key=a%20b&c=/"])
async def test_an_endpoint_of_one_signal_is_used_as_it_is(exporter_of, path):
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint="http://127.0.0.1:1", traces_endpoint=url(peer, path))
        await exporter.export(traces("a"))
    assert peer.seen[0].path == path


async def test_signals_of_one_server_share_a_connection_and_others_do_not(exporter_of):
    async with HttpPeer() as one, HttpPeer() as two:
        exporter = await exporter_of(endpoint=url(one), metrics_endpoint=url(one, "/m"), logs_endpoint=url(two, "/l"))
        for batch in (traces("a"), other(Signal.METRICS), other(Signal.LOGS)):
            await exporter.export(batch)
        assert [seen.path for seen in one.seen] == ["/v1/traces", "/m"]
        assert [seen.path for seen in two.seen] == ["/l"]
        assert (one.connections, two.connections) == (1, 1)


async def test_a_signal_without_endpoint_is_refused_for_good(exporter_of):
    exporter = await exporter_of(traces_endpoint="http://127.0.0.1:1/")
    with pytest.raises(PermanentError, match="give `endpoint` or `logs_endpoint`") as error:
        await exporter.export(other(Signal.LOGS))
    assert error.value.reason == "no_endpoint"


async def test_unix_sockets(exporter_of, tmp_path):
    path = str(tmp_path / "peer.sock")
    async with HttpPeer(path=path) as peer:
        await (await exporter_of(endpoint=f"unix://{path}")).export(traces("a"))
    assert peer.seen[0].path == "/v1/traces"


async def test_headers_are_sent_and_never_shown(exporter_of):
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=url(peer), headers={"Authorization": "Bearer s3cret"})
        await exporter.export(traces("a"))
    assert peer.seen[0].headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(Config(endpoint="http://x", headers={"Authorization": "Bearer s3cret"}))


def test_names_that_no_header_can_have_are_left_out():
    assert [*Config(endpoint="http://x", headers={"can you have a . here?": "F", "X-Key": "k"}).headers] == ["X-Key"]


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("400 Bad Request", MalformedError, "malformed"),
        ("401 Unauthorized", PermanentError, "http_401"),
        ("404 Not Found", PermanentError, "http_404"),
        ("413 Too Large", TooLargeError, "too_large"),
        ("429 Slow Down", Overloaded, "http_429"),
        ("500 Oops", PermanentError, "http_500"),
        ("502 Bad Gateway", RetryableError, "http_502"),
        ("503 Unavailable", RetryableError, "http_503"),
        ("504 Timeout", RetryableError, "http_504"),
    ],
)
async def test_statuses_mean_what_otlp_says(exporter_of, status, error, reason):
    said = Status(message="because").SerializeToString()
    async with HttpPeer(response(status, said, Content_Type=PROTOBUF, Retry_After="17")) as peer:
        with pytest.raises(error, match="because") as raised:
            await (await exporter_of(endpoint=url(peer))).export(traces("a"))
    assert type(raised.value) is error
    assert raised.value.reason == reason
    if isinstance(raised.value, RetryableError):
        assert raised.value.retry_after == 17


async def test_a_redirect_says_where_it_points(exporter_of):
    async with HttpPeer(response("308 Permanent Redirect", Location="https://new.example/v1/traces")) as peer:
        with pytest.raises(PermanentError, match=r"https://new.example/v1/traces"):
            await (await exporter_of(endpoint=url(peer))).export(traces("a"))


TRACE_PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
).SerializeToString()
LOG_PARTIAL = ExportLogsServiceResponse(
    partial_success=ExportLogsPartialSuccess(rejected_log_records=1)
).SerializeToString()
WARNING_ONLY = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(error_message="deprecated")
).SerializeToString()


@pytest.mark.parametrize(
    ("body", "kind", "rejected"),
    [
        (b"", PROTOBUF, 0),
        (ExportTraceServiceResponse().SerializeToString(), PROTOBUF, 0),
        (TRACE_PARTIAL, PROTOBUF, 2),
        (LOG_PARTIAL, f"{PROTOBUF}; charset=x", 1),
        (TRACE_PARTIAL, "text/plain", 0),
        (b"\xff\xff", PROTOBUF, 0),
        (WARNING_ONLY, PROTOBUF, 0),
        (b"{}", JSON, 0),
        (b'{"partialSuccess":{}}', JSON, 0),
        (b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}', f"{JSON}; charset=utf-8", 2),
        (b'{"partialSuccess":{"rejectedDataPoints":1}}', JSON, 1),
        (b'{"partialSuccess":{"rejectedSpans":99}}', JSON, 3),
        (b'{"partialSuccess":{"rejectedSpans":-1}}', JSON, 0),
        (b'{"partialSuccess":{"rejectedSpans":"x"}}', JSON, 0),
        (b'{"partialSuccess":null}', JSON, 0),
        (b"[]", JSON, 0),
        (b"not json", JSON, 0),
    ],
)
async def test_partial_success(exporter_of, body, kind, rejected):
    async with HttpPeer(response("200 OK", body, Content_Type=kind)) as peer:
        assert await (await exporter_of(endpoint=url(peer))).export(traces("a", "b", "c")) == rejected


@pytest.mark.parametrize(("body", "rejected", "said"), [(TRACE_PARTIAL, 2, "too old"), (WARNING_ONLY, 0, "deprecated")])
async def test_what_the_other_side_says_is_logged_once_in_a_while(exporter_of, body, rejected, said):
    async with HttpPeer(response("200 OK", body, Content_Type=PROTOBUF)) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        with capture_logs() as logs:
            for _ in range(3):
                await exporter.export(traces("a", "b", "c"))
    assert [(log["event"], log["log_level"], log["rejected"], log["message"]) for log in logs] == [
        ("partial success", "warning", rejected, said)
    ]


async def test_tls_and_its_refresh(exporter_of, tmp_path):
    import ssl

    authority = Authority(tmp_path)
    pair = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    async with HttpPeer(tls=context) as peer:
        exporter = await exporter_of(endpoint=f"https://localhost:{peer.port}", tls={"ca_file": authority.ca_file})
        await exporter.export(traces("a"))
        exporter.refresh()
        await exporter.export(traces("a"))
        await exporter.shutdown()
    assert len(peer.seen) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "an endpoint is missing"),
        ({"endpoint": "collector:4318"}, "write `http://collector:4318` or `https://collector:4318`"),
        ({"traces_endpoint": "collector:4318"}, "is not a URL"),
        ({"endpoint": "http://x?a=b"}, "cannot have a query"),
        ({"endpoint": "http://me:pass@x"}, "`authorization` header"),
        ({"endpoint": "http://x", "headers": {"a": "c\r\nd: e"}}, "line break"),
        ({"endpoint": "http://x", "headers": {"Content-Length": "1"}}, "itself"),
        ({"endpoint": "http://x", "encoding": "xml"}, "encoding"),
        ({"endpoint": "http://x", "compression": "snappy"}, "compression"),
        ({"endpoint": "http://x", "timeout": "0s"}, "timeout"),
        ({"endpoint": "http://x", "max_request_size": 0}, "max_request_size"),
        ({"endpoint": "http://x", "endpiont": "http://x"}, "endpiont"),
    ],
)
def test_bad_configuration_says_what_would_be_right(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


async def test_with_a_queue_before_it_one_bad_sender_costs_its_neighbours_nothing(exporter_of):
    async def answer(seen: Seen) -> bytes:
        if len(peer.seen) == 1:
            return response("503 Unavailable")
        return response("400 Bad Request") if b"poison" in seen.body else response()

    async with HttpPeer(answer) as peer:
        exporter = await exporter_of(endpoint=url(peer), compression="none")
        retry = Retry(initial_interval="1ms")
        sender = Sender(exporter, Signal.TRACES, queue=Queue(num_consumers=2), retry=retry, timeout=60)
        await sender.start()
        batch = merge([traces("a"), traces("b", "c"), traces("poison"), traces("d")])
        settled = asyncio.Event()
        left = [receipt for receipt, _ in batch.shares]
        for receipt in tuple(left):
            receipt.on_settled = lambda receipt: (left.remove(receipt), left or settled.set())
        sender.consume(batch)
        async with asyncio.timeout(60):
            await settled.wait()
        assert [receipt.worst for receipt, _ in batch.shares] == [
            Outcome.DELIVERED,
            Outcome.DELIVERED,
            Outcome.DROPPED,
            Outcome.DELIVERED,
        ]
        drained = await sender.drain(time.monotonic() + 60)
        assert drained.left == 0
