from __future__ import annotations

import asyncio
import time

import orjson
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent import __version__
from otelwp_agent.codecs.zipkin import zipkin_pb2 as pb
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError, TooLargeError
from otelwp_agent.exporters.zipkin import FACTORY, Config, ZipkinExporter
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.sender import Sender
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost, messages_of
from otelwp_agent.transport.compression import decompress
from tests.kit.certificates import Authority
from tests.kit.http_peer import HttpPeer, Seen, response
from tests.kit.jaeger import Agent

PATH = "/api/v2/spans"
ACCEPTED = response("202 Accepted")


def traces(*names: str, service: str = "shop") -> Batch:
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    if service:
        resource.resource.attributes.add(key="service.name").value.string_value = service
    spans = resource.scope_spans.add().spans
    for number, name in enumerate(names, start=1):
        ids = {} if name == "no ids" else {"trace_id": b"t" * 16, "span_id": number.to_bytes(8, "big")}
        spans.add(name=name, start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 5000, **ids)
    receipt = Receipt(len(names))
    return Batch(Signal.TRACES, message.SerializeToString(), len(names), Origin(), [(receipt, len(names))])


@pytest.fixture
async def exporter_of():
    """Return a started exporter with these settings; all are shut down in the end."""
    exporters = []

    async def make(**settings: object) -> ZipkinExporter:
        context = Context(
            ComponentId("zipkin"), Kind.EXPORTER, Registry(), structlog.get_logger(), time.monotonic, NoHost()
        )
        exporter = FACTORY.build(Config(**settings), context)
        assert isinstance(exporter, ZipkinExporter)
        exporters.append(exporter)
        await exporter.start()
        return exporter

    yield make
    for exporter in exporters:
        await exporter.shutdown()
        await exporter.shutdown()


def url(peer: HttpPeer, path: str = PATH) -> str:
    return f"http://127.0.0.1:{peer.port}{path}"


async def test_json(exporter_of):
    async with HttpPeer(ACCEPTED) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        assert await exporter.export(traces("a", "b")) == 0
    (seen,) = peer.seen
    assert seen.line == f"POST {PATH} HTTP/1.1"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"] == f"otelwp-agent/{__version__}"
    assert "content-encoding" not in seen.headers
    first, second = orjson.loads(seen.body)
    assert first == {
        "traceId": "74" * 16,
        "id": "0000000000000001",
        "name": "a",
        "timestamp": 10**15,
        "duration": 5,
        "localEndpoint": {"serviceName": "shop"},
    }
    assert (second["id"], second["name"]) == ("0000000000000002", "b")


async def test_protobuf(exporter_of):
    async with HttpPeer(ACCEPTED) as peer:
        await (await exporter_of(endpoint=url(peer), format="proto")).export(traces("a"))
    (seen,) = peer.seen
    assert seen.headers["content-type"] == "application/x-protobuf"
    (span,) = pb.ListOfSpans.FromString(seen.body).spans
    assert (span.name, span.local_endpoint.service_name) == (b"a", b"shop")


@pytest.mark.parametrize(("settings", "name"), [({}, "unknown_service"), ({"default_service_name": "wp"}, "wp")])
@pytest.mark.parametrize("format_", ["json", "proto"])
async def test_services_without_a_name(exporter_of, settings, name, format_):
    async with HttpPeer(ACCEPTED) as peer:
        await (await exporter_of(endpoint=url(peer), format=format_, **settings)).export(traces("a", service=""))
    body = peer.seen[0].body
    if format_ == "json":
        assert orjson.loads(body)[0]["localEndpoint"] == {"serviceName": name}
    else:
        assert pb.ListOfSpans.FromString(body).spans[0].local_endpoint.service_name == name.encode()


@pytest.mark.parametrize(
    ("compression", "coding"), [("gzip", "gzip"), ("zstd", "zstd"), ("zlib", "deflate"), ("", None), ("none", None)]
)
async def test_compresses_as_configured(exporter_of, compression, coding):
    async with HttpPeer(ACCEPTED) as peer:
        await (await exporter_of(endpoint=url(peer), compression=compression)).export(traces(*["span"] * 100))
    (seen,) = peer.seen
    assert seen.headers.get("content-encoding") == coding
    assert len(orjson.loads(decompress(coding or "", seen.body, 2**20))) == 100


@pytest.mark.parametrize("path", ["/zipkin/", "/in?key=a%20b&c=/", "/ü/a%20b"])
async def test_the_endpoint_is_used_as_it_is(exporter_of, path):
    async with HttpPeer(ACCEPTED) as peer:
        await (await exporter_of(endpoint=url(peer, path))).export(traces("a"))
    assert peer.seen[0].path == path.replace("ü", "%C3%BC")


@pytest.mark.parametrize("path", ["", "/"])
async def test_without_a_path_it_is_where_zipkin_takes_spans(exporter_of, path):
    async with HttpPeer(ACCEPTED) as peer:
        await (await exporter_of(endpoint=url(peer, path))).export(traces("a"))
    assert peer.seen[0].path == PATH


async def test_unix_sockets(exporter_of, tmp_path):
    path = str(tmp_path / "peer.sock")
    async with HttpPeer(ACCEPTED, path=path) as peer:
        await (await exporter_of(endpoint=f"unix://{path}")).export(traces("a"))
    assert peer.seen[0].path == PATH


async def test_headers_are_sent_and_never_shown(exporter_of):
    async with HttpPeer(ACCEPTED) as peer:
        exporter = await exporter_of(endpoint=url(peer), headers={"Authorization": "Bearer s3cret"})
        await exporter.export(traces("a"))
    assert peer.seen[0].headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(Config(endpoint="http://x/s", headers={"Authorization": "Bearer s3cret"}))


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("400 Bad Request", MalformedError, "malformed"),
        ("404 Not Found", PermanentError, "http_404"),
        ("413 Too Large", TooLargeError, "too_large"),
        ("429 Slow Down", Overloaded, "http_429"),
        ("500 Oops", PermanentError, "http_500"),
        ("503 Unavailable", RetryableError, "http_503"),
    ],
)
async def test_statuses(exporter_of, status, error, reason):
    async with HttpPeer(response(status, b"because", Content_Type="text/plain", Retry_After="17")) as peer:
        with pytest.raises(error, match="because") as raised:
            await (await exporter_of(endpoint=url(peer))).export(traces("a"))
    assert (type(raised.value), raised.value.reason) == (error, reason)
    if isinstance(raised.value, RetryableError):
        assert raised.value.retry_after == 17


async def test_zipkins_own_way_to_say_too_large(exporter_of):
    async with HttpPeer(response("500 Oops", b"413 Request Entity Too Large", Content_Type="text/plain")) as peer:
        with pytest.raises(TooLargeError):
            await (await exporter_of(endpoint=url(peer))).export(traces("a"))


async def test_spans_without_ids_are_left_out_counted_and_logged(exporter_of):
    async with HttpPeer(ACCEPTED) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        with capture_logs() as logs:
            assert await exporter.export(traces("a", "no ids", "b", "no ids")) == 2
            assert await exporter.export(traces("a", "no ids")) == 1
            with pytest.raises(PermanentError, match="trace id and span id that Zipkin needs") as raised:
                await exporter.export(traces("no ids"))
    assert raised.value.reason == "no_ids"
    assert [[span["name"] for span in orjson.loads(seen.body)] for seen in peer.seen] == [["a", "b"], ["a"]]
    assert [(log["event"], log["spans"]) for log in logs] == [("spans skipped", 2)]


async def test_nothing_is_not_sent(exporter_of):
    exporter = await exporter_of(endpoint="http://127.0.0.1:9/api/v2/spans")
    assert await exporter.export(Batch(Signal.TRACES, b"", 0, Origin(), [])) == 0


async def test_what_does_not_parse_is_malformed(exporter_of):
    exporter = await exporter_of(endpoint="http://127.0.0.1:9/api/v2/spans")
    with pytest.raises(MalformedError):
        await exporter.export(Batch(Signal.TRACES, b"\xff", 1, Origin(), []))


async def test_tls_and_its_refresh(exporter_of, tmp_path):
    import ssl

    authority = Authority(tmp_path)
    pair = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    async with HttpPeer(ACCEPTED, tls=context) as peer:
        endpoint = f"https://localhost:{peer.port}{PATH}"
        exporter = await exporter_of(endpoint=endpoint, tls={"ca_file": authority.ca_file})
        await exporter.export(traces("a"))
        exporter.refresh()
        await exporter.export(traces("a"))
        await exporter.shutdown()
    assert len(peer.seen) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "endpoint"),
        ({"endpoint": "zipkin:9411"}, "write `http://zipkin:9411` or"),
        ({"endpoint": "http://me:pass@x/s"}, "`authorization` header"),
        ({"endpoint": "http://x/s", "headers": {"a": "c\r\nd: e"}}, "line break"),
        ({"endpoint": "http://x/s", "format": "thrift"}, "format"),
        ({"endpoint": "http://x/s", "default_service_name": ""}, "default_service_name"),
        ({"endpoint": "http://x/s", "endpiont": "http://x"}, "endpiont"),
    ],
)
def test_bad_configuration_says_what_would_be_right(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


async def settled(batch: Batch, sender: Sender) -> None:
    """Send a batch and wait until all of it is settled."""
    done = asyncio.Event()
    left = [receipt for receipt, _ in batch.shares]
    for receipt in tuple(left):
        receipt.on_settled = lambda receipt: (left.remove(receipt), left or done.set())
    sender.consume(batch)
    async with asyncio.timeout(60):
        await done.wait()


async def test_what_is_too_large_in_zipkins_format_is_split(exporter_of):
    async with HttpPeer(ACCEPTED) as peer:
        exporter = await exporter_of(endpoint=url(peer), max_request_size=2048)
        sender = Sender(exporter, Signal.TRACES, queue=Queue(), retry=Retry(), timeout=60)
        await sender.start()
        batch = merge([traces(*["span"] * 20), traces(*["other"] * 20)])
        await settled(batch, sender)
        assert (await sender.drain(time.monotonic() + 60)).left == 0
    assert {receipt.worst for receipt, _ in batch.shares} == {Outcome.DELIVERED}
    assert sum(len(orjson.loads(seen.body)) for seen in peer.seen) == 40
    assert max(len(seen.body) for seen in peer.seen) <= 2048


async def test_one_bad_sender_costs_its_neighbours_nothing(exporter_of):
    async def answer(seen: Seen) -> bytes:
        if len(peer.seen) == 1:
            return response("503 Unavailable")
        return response("400 Bad Request") if b"poison" in seen.body else ACCEPTED

    async with HttpPeer(answer) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        sender = Sender(exporter, Signal.TRACES, queue=Queue(), retry=Retry(initial_interval="1ms"), timeout=60)
        await sender.start()
        batch = merge([traces("a"), traces("b", "c"), traces("poison"), traces("d")])
        await settled(batch, sender)
        assert (await sender.drain(time.monotonic() + 60)).left == 0
    assert [receipt.worst for receipt, _ in batch.shares] == [
        Outcome.DELIVERED,
        Outcome.DELIVERED,
        Outcome.DROPPED,
        Outcome.DELIVERED,
    ]


@pytest.mark.parametrize("format_", ["json", "proto"])
async def test_from_agent_to_agent(exporter_of, format_):
    batch = traces("a", "b", "c")
    async with Agent("zipkin") as agent:
        exporter = await exporter_of(
            endpoint=f"http://127.0.0.1:{agent.port}{PATH}", format=format_, compression="gzip"
        )
        assert await exporter.export(batch) == 0
        (received,) = agent.pipeline.batches
    sent = messages_of(Signal.TRACES, batch.body)
    for span in sent:
        span.kind = 1  # unspecified is internal
    assert messages_of(Signal.TRACES, received.body) == sent
