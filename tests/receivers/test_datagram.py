import gzip
import json
import random
import socket
import time
import tracemalloc
from pathlib import Path

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.codecs.otlp_json import decode
from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.datagram import FACTORY, Config
from otelwp_agent.telemetry.metrics import Registry

CAPTURES = Path(__file__).parents[1] / "data/captures"

JAEGER = {
    "data": [
        {
            "traceID": "de8a5e8296f32c91e23bad210c9f5dc7",
            "spans": [
                {
                    "traceID": "1d1aeade7e26e005ffb0bf74dad4dd92",
                    "spanID": "d20dab9aa6a9eaf4",
                    "operationName": "wordpress.request",
                    "startTime": 1795186135546316,
                    "duration": 87834,
                    "tags": [{"key": "http.method", "value": "GET"}],
                    "process": {"serviceName": "shop", "tags": []},
                }
            ],
        }
    ]
}


class Pipeline:
    def __init__(self):
        self.batches = []
        self.refusal = None
        self.broken = False

    def admit(self):
        if self.refusal is not None:
            raise self.refusal

    def consume(self, batch, answer=None, rejected=None):
        if self.broken:
            raise ZeroDivisionError
        self.batches.append(batch)


class Agent:
    def __init__(self, **config):
        self.now = 0.0
        self.registry = Registry()
        config = {"endpoint": "127.0.0.1:0", **config}
        context = Context(
            ComponentId("datagram"), Kind.RECEIVER, self.registry, structlog.get_logger(), lambda: self.now, None
        )
        self.receiver = FACTORY.build(Config.model_validate(config), context)
        self.pipeline = Pipeline()
        self.receiver.next = {Signal.TRACES: self.pipeline}

    def deliver(self, *datagrams):
        """Hand over datagrams as the socket would."""
        for each in datagrams:
            self.receiver._take(each)

    def lost(self, reason):
        return self.registry.value("otelwp_receiver_lost_datagrams", receiver="datagram", reason=reason)


def spans(count=1):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(count):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="page")
    return request.SerializeToString()


@pytest.mark.parametrize("transport", ["udp", "unixgram"])
async def test_what_is_sent_arrives(transport, tmp_path):
    path = f"{tmp_path}/a.dgram"
    agent = Agent(**({"endpoint": f"unix://{path}"} if transport == "unixgram" else {}))
    await agent.receiver.start()
    address = agent.receiver.endpoints()[transport]
    with socket.socket(socket.AF_UNIX if transport == "unixgram" else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(path if transport == "unixgram" else ("127.0.0.1", int(address.rpartition(":")[2])))
        sender.send(spans(3))
    await agent.receiver.shutdown()
    (batch,) = agent.pipeline.batches
    assert (batch.body, batch.items, batch.origin.transport) == (spans(3), 3, transport)
    assert agent.registry.value("otelwp_receiver_datagrams", transport=transport) == 1
    assert agent.lost("no_room") == 0


def test_the_first_bytes_tell_what_it_is():
    text = (CAPTURES / "auto-wordpress-rest.json").read_bytes()
    body = decode(Signal.TRACES, text)
    agent = Agent()
    agent.deliver(body, text, b"  " + text, gzip.compress(text), gzip.compress(body))
    assert [batch.body for batch in agent.pipeline.batches] == [body] * 5


def test_a_request_whose_resource_has_the_length_of_a_brace_is_no_json():
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="")
    scope.spans[0].name = "x" * (0x7B - request.resource_spans[0].ByteSize() - 2)
    body = request.SerializeToString()
    assert body[:2] == b"\n{"
    agent = Agent()
    agent.deliver(body)
    assert agent.pipeline.batches[0].body == body


def test_the_founding_plugins_json_is_taken_as_well():
    agent = Agent()
    agent.deliver(json.dumps(JAEGER).encode())
    request = ExportTraceServiceRequest.FromString(agent.pipeline.batches[0].body)
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert span.trace_id.hex() == "1d1aeade7e26e005ffb0bf74dad4dd92"
    assert span.name == "wordpress.request"
    repairs = {"trace_id_differs", "process_inline", "tag_without_type", "kind_missing"}
    service = JAEGER["data"][0]["spans"][0]["process"]["serviceName"]
    counted = [
        agent.registry.value("otelwp_receiver_mended", receiver="datagram", kind=kind, site=service) for kind in repairs
    ]
    assert counted == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\xff\xff", "malformed"),
        (b"{not json", "malformed"),
        (b'[{"traceID": 1}]', "malformed"),
        (b"\x1f\x8bxx", "malformed"),
        (gzip.compress(bytes(5 * 2**20), mtime=0), "too_large"),
    ],
    ids=["nothing", "nothing in gzip", "protobuf", "json", "jaeger", "gzip", "inflates"],
)
def test_what_cannot_be_read_is_counted_and_ends_nothing(data, reason):
    agent = Agent()
    agent.deliver(data, spans())
    assert agent.lost(reason) == 1
    assert len(agent.pipeline.batches) == 1


def test_a_datagram_inflates_in_proportion_to_its_size():
    agent = Agent()
    page = spans(1)
    small = gzip.compress(b'{"resourceSpans": [' + b"{}," * 30_000 + b"{}]}", mtime=0)
    agent.deliver(small, gzip.compress(page * 400, mtime=0))
    assert len(small) < 1000
    assert agent.lost("too_large") == 1
    assert [batch.items for batch in agent.pipeline.batches] == [400], "25 kB fit whatever their ratio is"


REPEATED = {
    "empty spans": b"\n\x04\x12\x02\x12\x00" * 3000,
    "json": b'{"resourceSpans": [' + b'{"scopeSpans": [{"spans": [{}]}]},' * 2999 + b"{}]}",
    "empty objects": b'{"resourceSpans": [' + b"{}," * 400_000 + b"{}]}",
    "jaeger": b'{"data": [{"spans": ['
    + b",".join(
        json.dumps({**JAEGER["data"][0]["spans"][0], "traceID": f"{n:032x}", "spanID": f"{n:016x}"}).encode()
        for n in range(3001)
    )
    + b"]}]}",
}


@pytest.mark.parametrize("body", REPEATED.values(), ids=REPEATED)
def test_the_items_of_a_datagram_are_limited(body):
    agent = Agent(max_items_per_request=3000)
    agent.deliver(body, spans(2))
    assert agent.lost("too_large") == 1
    assert [batch.items for batch in agent.pipeline.batches] == [2]


def test_what_is_within_the_limit_of_items_is_accepted():
    agent = Agent(max_items_per_request=3000)
    agent.deliver(spans(2998))
    assert [batch.items for batch in agent.pipeline.batches] == [2998], "with its resource and scope"


def test_datagrams_of_empty_objects_use_little_memory():
    """Each is 64 KiB that inflates to 4 MiB; unlimited, it became 1.4 million objects."""
    noise = random.Random(1).randbytes(40_000).hex().encode()
    body = gzip.compress(b'{"x": "' + noise + b'", "resourceSpans": [' + b"{}," * 1_350_000 + b"{}]}", mtime=0)
    assert len(body) < 64 * 1024
    agent = Agent()
    agent.deliver(body)  # what is loaded once
    tracemalloc.start()
    try:
        agent.deliver(*[body] * 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert agent.lost("too_large") == 4
    assert peak < 16 * 2**20


def test_an_empty_request_goes_nowhere():
    agent = Agent()
    agent.deliver(b"{}", b'{"resourceSpans": []}')
    assert agent.pipeline.batches == []
    assert agent.registry.value("otelwp_receiver_lost_datagrams") == 0


def test_losses_are_logged_once_a_minute():
    with structlog.testing.capture_logs() as logs:
        agent = Agent()
        agent.deliver(*[b"\xff secret"] * 100)
        agent.now = 60.0
        agent.deliver(b"\xff secret")
    assert [(line["event"], line["reason"], line["datagrams"]) for line in logs] == [
        ("datagrams lost", "malformed", 1),
        ("datagrams lost", "malformed", 100),
    ]
    assert "secret" not in str(logs)


async def test_one_that_is_too_large_is_told_apart():
    agent = Agent(max_datagram_size=10)
    await agent.receiver.start()
    port = int(agent.receiver.endpoints()["udp"].rpartition(":")[2])
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(spans(5), ("127.0.0.1", port))
    await agent.receiver.shutdown()
    assert (agent.lost("too_large"), agent.registry.value("otelwp_receiver_datagrams")) == (1, 1)


def test_what_there_is_no_room_for_is_dropped_and_shown():
    agent = Agent()
    agent.pipeline.refusal = Overloaded("no room")
    agent.deliver(spans(), b"\xff not even read")
    assert agent.registry.value("otelwp_receiver_dropped_requests", receiver="datagram") == 2
    assert agent.receiver.health().healthy is False
    agent.now = 61.0
    assert agent.receiver.health().healthy is True


def test_a_fault_of_ours_ends_nothing():
    agent = Agent()
    agent.pipeline.broken = True
    agent.deliver(spans())
    assert agent.lost("internal") == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"endpoint": "localhost"}, "has no port"),
        ({"max_datagram_size": 0}, "would drop every datagram"),
        ({"receive_buffer_size": 1}, "greater than or equal to 4096"),
        ({"unix_mode": "rw"}, "String should match"),
    ],
)
def test_refused_settings(config, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(config)


async def test_it_keeps_up():
    """A page's trace costs far less than the page: the bound is generous, machines that run tests are busy."""
    agent = Agent()
    body = spans(50)
    started = time.process_time()
    agent.deliver(*[body] * 1000)
    assert time.process_time() - started < 1.0
