import asyncio
import gzip
import json
import socket

import pytest
from structlog.testing import capture_logs

from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder
from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.zipkin import Config
from otelwp_agent.testing import messages_of
from otelwp_agent.transport import decoding
from otelwp_agent.transport.http_messages import Head, Request
from tests.kit.jaeger import WORDPRESS
from tests.kit.jaeger import Agent as AnyAgent
from tests.kit.zipkin import CAPTURES, SPAN, TRACE, attributes_of, decoded, span

FRONT = (CAPTURES / "901-decalog-front.json").read_bytes()
PROTO = ProtoEncoder("x").encode(decoded(FRONT).traces.body()).body
PROTOBUF = "application/x-protobuf"
V2, V1 = "/api/v2/spans", "/api/v1/spans"


class Agent(AnyAgent):
    def __init__(self, **config):
        super().__init__("zipkin", **config)

    async def post(self, body, method="POST", path=V2, **headers):
        return await super().post(body, method, path, **headers)


async def test_decalog_lands():
    async with Agent() as agent:
        assert await agent.post(FRONT, Content_Type="application/json", User_Agent="PerfOps One") == (202, "")
        (batch,) = agent.pipeline.batches
        assert (batch.items, batch.origin.receiver, batch.origin.transport) == (13, "zipkin", "http")
        assert batch.origin.headers["user-agent"] == "PerfOps One"
        root = messages_of(Signal.TRACES, batch.body)[0]
        assert (root.name, root.kind, root.span_id.hex()) == ("CALL:WFRONT", 2, "0000000010216428")
        assert [(receipt.pending, items) for receipt, items in batch.shares] == [(13, 13)]
        assert agent.repairs("id_padded", site="Main Request") == 25


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/x-protobuf"]
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_json_is_told_by_its_bytes(content_type, method):
    headers = {"Content_Type": content_type} if content_type else {}
    async with Agent() as agent:
        for body in (FRONT, b" " + FRONT, b"\xef\xbb\xbf" + FRONT):
            assert (await agent.post(body, method, **headers))[0] == 202
        assert agent.pipeline.items == 39


@pytest.mark.parametrize("size", [1, 5000])
@pytest.mark.parametrize(("refusal", "status"), [(None, 202), (Overloaded("the disk is full"), 429)])
async def test_the_answer_waits_for_the_journal(size, refusal, status):
    async with Agent() as agent:
        agent.pipeline.waiting = []
        body = json.dumps([span(id=f"{number + 1:016x}") for number in range(size)]).encode()
        post = asyncio.ensure_future(agent.post(body))
        async with asyncio.timeout(60):
            while not agent.pipeline.waiting:
                await asyncio.sleep(0)
        ((told, answer),) = agent.pipeline.waiting
        assert not post.done()
        if refusal is None:
            told.set_result(answer)
        else:
            told.set_exception(refusal)
        assert (await post)[0] == status


async def test_protobuf():
    async with Agent() as agent:
        assert await agent.post(PROTO, Content_Type=PROTOBUF) == (202, "")
        assert agent.pipeline.items == 13
        status, answer = await agent.post(PROTO[:-3], Content_Type=PROTOBUF)
        assert (status, answer) == (400, "the body is not a serialized zipkin.proto3.ListOfSpans\n")
        assert (await agent.post(PROTO))[0] == 400  # without the type it is taken for JSON


async def test_v1():
    body = [
        {
            "traceId": TRACE,
            "id": SPAN,
            "name": "get",
            "annotations": [{"timestamp": 1795187792439300, "value": "sr", "endpoint": {"serviceName": "shop"}}],
        }
    ]
    async with Agent() as agent:
        assert await agent.post(body, path=V1) == (202, "")
        (found,) = messages_of(Signal.TRACES, agent.pipeline.batches[0].body)
        assert found.kind == 2


@pytest.mark.parametrize(
    ("path", "content_type", "hint"),
    [
        (V1, "application/x-thrift", "configure the sender to write JSON"),
        (V2, "application/x-thrift; charset=x", "configure the sender to write JSON"),
        (V1, PROTOBUF, "post it to /api/v2/spans"),
    ],
)
async def test_a_refusal_names_the_supported_formats(path, content_type, hint):
    async with Agent() as agent:
        for _ in range(2):
            status, answer = await agent.post(b"\x0c\x00", path=path, Content_Type=content_type)
            assert status == 415
            assert hint in answer
        assert agent.refused("unsupported_media_type") == 2
        assert (await agent.post(FRONT))[0] == 202


async def test_gzip_is_told_by_its_header_or_its_bytes():
    async with Agent() as agent:
        assert (await agent.post(gzip.compress(FRONT), Content_Encoding="gzip"))[0] == 202
        assert (await agent.post(gzip.compress(FRONT)))[0] == 202
        assert agent.pipeline.items == 26


async def test_a_bomb_without_a_header_is_stopped():
    async with Agent(endpoint="127.0.0.1:0", max_request_body_size="1MiB") as agent:
        assert (await agent.post(gzip.compress(b"[" + b" " * 2**21 + b"]")))[0] == 413


async def test_an_empty_body_is_wrong_and_counted_by_itself():
    async with Agent() as agent:
        status, answer = await agent.post(b"")
        assert (status, "the body is empty" in answer) == (400, True)
        assert (await agent.post(gzip.compress(b"")))[0] == 400
        assert (agent.refused("empty"), agent.refused("malformed")) == (2, 0)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"a=1&b%5Bc%5D=2", "not JSON"),
        (b'[{"traceId":', "line 1 column"),
        (b'{"data":[]}', "the body must be a list of spans"),
        (b'[{"traceId":"abc"}]', "[0].id: must be an id of 16 hex digits"),
        (b"[" * 5000, "not JSON"),
    ],
)
async def test_what_cannot_be_used_is_answered_with_its_place(body, place):
    async with Agent() as agent:
        status, answer = await agent.post(body)
        assert status == 400
        assert place in answer
        assert agent.refused("malformed") == 1
        assert (await agent.post(FRONT))[0] == 202


async def test_nothing_is_nothing():
    async with Agent() as agent:
        assert await agent.post(b"[]") == (202, "")
        assert agent.pipeline.batches == []


async def test_other_methods_and_paths():
    async with Agent() as agent:
        assert (await agent.post(b"", "GET"))[0] == 405
        assert (await agent.post(FRONT, path="/api/v2/trace"))[0] == 404
        agent.receiver.next = {}
        status, answer = await agent.post(FRONT)
        assert (status, "service.pipelines" in answer) == (404, True)


async def test_parse_string_tags():
    async with Agent(endpoint="127.0.0.1:0", parse_string_tags=True) as agent:
        await agent.post([span(tags={"n": "7"})])
        (found,) = messages_of(Signal.TRACES, agent.pipeline.batches[0].body)
        assert attributes_of(found) == {"n": 7}


async def test_repairs_are_counted_by_site_and_logged_once():
    async with Agent() as agent:
        with capture_logs() as logs:
            for _ in range(3):
                await agent.post(FRONT, User_Agent=WORDPRESS)
        assert agent.repairs("id_padded", site="shop.example:8980") == 75
        assert [line["kinds"] for line in logs if line["event"] == "spans repaired"] == [{"id_padded": 25}]


async def test_overload_is_refused_or_dropped_as_configured():
    async with Agent() as agent:
        agent.pipeline.error = Overloaded("no room", retry_after=3)
        assert (await agent.post(FRONT))[0] == 429
        assert agent.refused("overloaded") == 1
    async with Agent(endpoint="127.0.0.1:0", on_overload="accept_and_drop") as agent:
        agent.pipeline.error = Overloaded("no room", retry_after=3)
        status, _ = await agent.post(FRONT)
        assert 200 <= status < 300
        assert agent.registry.value("otelwp_receiver_dropped_requests") == 1
        assert agent.receiver.health().healthy is False


def large(count=20_000):
    return json.dumps([span(id=f"{number:016x}", tags={"n": str(number)}) for number in range(1, count + 1)]).encode()


async def test_a_large_body_lets_others_in_between():
    async with Agent() as agent:
        answer = agent.receiver._handle(Request(Head("POST", V2, {}), large()))
        turns = 0
        while not answer.done():
            await asyncio.sleep(0)
            turns += 1
        assert answer.result().status == 202
        assert turns >= 20_000 // 512
        assert [batch.items for batch in agent.pipeline.batches] == [20_000]
        assert await agent.post(large(2000)) == (202, "")


async def test_a_large_body_that_is_wrong_or_has_no_room_is_told():
    bad = b"[" + b"7," * 1000 + b"7]"
    async with Agent() as agent:
        status, answer = await agent.post(bad)
        assert (status, answer) == (400, "[0]: a span must be an object\n")
        assert agent.refused("malformed") == 1
        agent.pipeline.error = Overloaded("no room")
        assert (await agent.post(large(1000)))[0] == 429


async def test_a_bug_is_a_500_and_in_the_log(monkeypatch):
    async with Agent() as agent:
        agent.pipeline.error = KeyError("bug")
        with capture_logs() as logs:
            assert (await agent.post(large(1000)))[0] == 500
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["request failed"]
        agent.pipeline.error = None
        assert (await agent.post(large(1000)))[0] == 202


async def test_a_sender_that_is_gone_has_not_sent_for_nothing():
    async with Agent() as agent:
        body = large(1000)
        _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(f"POST {V2} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(60):
            while not agent.pipeline.batches:
                await asyncio.sleep(0.001)
        assert agent.pipeline.items == 1000


async def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        agent = Agent(endpoint=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(StartError, match="receivers/zipkin: cannot listen"):
            await agent.receiver.start()
        assert agent.receiver.endpoints() == {}


def test_the_defaults():
    assert str(Config().endpoint) == "127.0.0.1:9411"
    assert str(Config.model_validate({"protocols": {"http": None}}).protocols.http.endpoint) == "127.0.0.1:9411"


async def test_the_collectors_newer_form():
    async with Agent(protocols={"http": {"endpoint": "127.0.0.1:0", "on_overload": "accept_and_drop"}}) as agent:
        assert (await agent.post(FRONT))[0] == 202
    with pytest.raises(ValueError, match=r"protocols.grpc|grpc"):
        Config.model_validate({"protocols": {"grpc": None}})


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}])
async def test_a_web_page_of_another_origin_cannot_send(headers):
    """`text/plain` needs no CORS preflight, so only this keeps pages from sending to a receiver on loopback."""
    async with Agent() as agent:
        for _ in range(2):
            status, message = await agent.post(FRONT, Content_Type="text/plain", **headers)
            assert status == 403
            assert "cors.allowed_origins" in message
        assert agent.pipeline.batches == []
    async with Agent(cors={"allowed_origins": ["https://evil.example"]}) as agent:
        answer = await agent.post(FRONT, Content_Type="text/plain", Origin="https://evil.example")
        assert answer[0] == 202


async def test_more_spans_than_a_request_may_hold_are_refused():
    async with Agent(max_items_per_request=1000) as agent:
        for body, options in (
            (large(1001), {}),
            (b"[" + b"{}," * 1000 + b"{}]", {}),
            (b"\x0a\0" * 1001, {"Content_Type": "application/x-protobuf"}),
        ):
            status, answer = await agent.post(body, **options)
            assert (status, "raise max_items_per_request" in answer) == (413, True)
        assert (await agent.post(large(1000)))[0] == 202
        assert agent.refused("too_large") == 3


async def test_a_large_body_is_answered_before_the_receiver_is_shut_down():
    body = large(5000)
    assert len(body) > decoding.OFF_LOOP
    agent = Agent()
    await agent.receiver.start()
    answer = asyncio.ensure_future(agent.post(body))
    while not agent.receiver._decoding._answers:
        await asyncio.sleep(0)
    await agent.receiver.shutdown()
    assert (await answer)[0] == 202
    assert agent.pipeline.items == 5000


@pytest.mark.parametrize("path", [V1, V2])
async def test_a_body_of_many_small_values_is_decoded_in_a_thread(path):
    parts = b",".join([b'{"value":""}'] * decoding.MAX_COMMAS)
    body = b'[{"traceId":"1","id":"1","annotations":[%b]}]' % parts
    assert len(body) < decoding.OFF_LOOP
    async with Agent() as agent:
        answer = agent.receiver._handle(Request(Head("POST", path, {}), body))
        assert agent.receiver._decoding._threads == 1
        assert (await answer).status == 202
        assert agent.pipeline.items == 1


@pytest.mark.parametrize("gate", [{"auth": {"authenticator": "x"}}, {"middlewares": [{"id": "x"}]}])
def test_authentication_that_would_have_no_effect_is_refused(gate):
    with pytest.raises(ValueError, match=r"have no effect beside `protocols`: write them below `protocols.http`"):
        Config.model_validate({"protocols": {"http": None}, **gate})
    assert Config.model_validate({"protocols": {"http": gate}})
