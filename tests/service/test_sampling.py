import asyncio

import pytest
import structlog

from otelwp_agent.service.control import Control
from otelwp_agent.service.sampling import MOST, add_sampling
from tests.kit.control import ask
from tests.kit.stages import batch_of, build
from tests.kit.traffic import BEGIN, SECOND, request, traffic


class Graph:
    def __init__(self, samplers):
        self._samplers = samplers

    def providers(self, capability):
        return self._samplers


def make(name="", **settings):
    rules = {"target": {"traces_per_second": 1}, "per": ["http.route"], **settings}
    return build("adaptive_sampling", rules, name=name, clock=lambda: 0.0)


@pytest.fixture
async def serve(tmp_path):
    path = tmp_path / "control.sock"
    control = Control(structlog.get_logger())

    async def serve(*samplers):
        add_sampling(control, lambda: Graph(list(samplers)))
        await control.listen(str(path))

    serve.path = path
    yield serve
    await control.shutdown()


def feed(sampler, seconds=5):
    for _, body, spans in traffic(seconds, 30):
        sampler.consume(batch_of(body, spans))


async def test_explain(serve):
    sampler, _ = make()
    feed(sampler)
    await serve(sampler)
    status, data = await ask(serve.path, "GET", "/sampling?top=2")
    assert status == 200
    (found,) = data["samplers"]
    assert (found["pipeline"], found["processor"], found["mode"]) == ("traces", "adaptive_sampling", "enforce")
    assert found["per"] == ["http.route"]
    assert len(found["keys"]) == 2
    assert found["keys_known"] > 2


@pytest.mark.parametrize(("query", "keys"), [("", 12), ("?top=0", 0), ("?top=-1", 0), (f"?top={MOST * 1000}", 12)])
async def test_how_many_keys(serve, query, keys):
    sampler, _ = make()
    feed(sampler, 20)
    await serve(sampler)
    _, data = await ask(serve.path, "GET", f"/sampling{query}")
    assert len(data["samplers"][0]["keys"]) == keys


async def test_no_number(serve):
    await serve()
    status, answer = await ask(serve.path, "GET", "/sampling?top=x")
    assert status == 400
    assert "`top` must be a number of keys" in str(answer)
    assert await ask(serve.path, "GET", "/sampling") == (200, {"samplers": []})


DROPPED = b"\x00" * 15 + b"\x01"


def dropping(name=""):
    """Return a sampler with a recorder that has dropped one trace, and what comes out of it."""
    nothing = {each: {"enabled": False} for each in ("errors", "slow", "first_seen", "releases", "debug")}
    sampler, catcher = make(
        name,
        always_keep=nothing,
        flight_recorder={"enabled": True},
        sites={"attribute": "http.route", "rules": [{"keep": 0}]},
    )
    span = {"trace_id": DROPPED, "span_id": b"1" * 8, "end_time_unix_nano": BEGIN + SECOND, "name": "GET"}
    sampler.consume(batch_of(request([{**span, "attributes": {"http.route": "/cart"}}]), 1))
    return sampler, catcher


@pytest.mark.parametrize(
    ("wanted", "spans"),
    [
        ('{"trace_id": "00000000000000000000000000000001"}', 1),
        ('{"trace_id": "00000000000000000000000000000002"}', 0),
        ('{"since": 0}', 1),
        ('{"since": 99999999999}', 0),
        ('{"where": {"http.route": "/c*"}}', 1),
        ('{"where": {"service.name": "shop", "http.route": "/cart"}}', 1),
        ('{"where": {"service.name": "shop", "http.route": "/other"}}', 0),
        ('{"where": {"http.route": "/cart"}, "since": 0, "processor": "adaptive_sampling"}', 1),
    ],
)
async def test_rescue(serve, wanted, spans):
    sampler, catcher = dropping()
    await serve(sampler)
    assert catcher.items == 0
    status, data = await ask(serve.path, "POST", "/sampling/rescue", wanted.encode())
    assert status == 200
    assert data["rescued"] == [{"pipeline": "traces", "processor": "adaptive_sampling", "spans": spans}]
    assert catcher.items == spans
    await sampler.shutdown()


async def test_one_of_two_is_chosen_and_who_records_nothing_is_left_out(serve):
    (one, _), (two, caught), (three, _) = dropping("one"), dropping("two"), make("three")
    await serve(one, two, three)
    body = b'{"since": 0, "processor": "adaptive_sampling/two"}'
    _, data = await ask(serve.path, "POST", "/sampling/rescue", body)
    assert [each["processor"] for each in data["rescued"]] == ["adaptive_sampling/two"]
    assert caught.items == 1
    _, data = await ask(serve.path, "POST", "/sampling/rescue", b'{"since": 0}')
    assert {each["processor"]: each["spans"] for each in data["rescued"]} == {
        "adaptive_sampling/one": 1,
        "adaptive_sampling/two": 0,
    }
    assert [each["processor"] for each in data["samplers"]][2] == "adaptive_sampling/three"
    await asyncio.gather(one.shutdown(), two.shutdown())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "give `trace_id`, `since` or `where`"),
        (b'{"trace_id": "xyz"}', "`trace_id` is not a hexadecimal number"),
        (b'{"trace_id": 7}', "`trace_id` is not a hexadecimal number"),
        (b'{"trace_id": "00"}', "`trace_id` must have 32 hexadecimal digits"),
        (b'{"since": "now"}', "`since` must be a time in seconds"),
        (b'{"since": true}', "`since` must be a time in seconds"),
        (b'{"where": ["a"]}', "`where` must be a map"),
        (b'{"where": {"a": 7}}', "`where` must be a map"),
        (b"[]", "the body is not a JSON object"),
    ],
)
async def test_bad_questions(serve, body, words):
    await serve(make()[0])
    status, answer = await ask(serve.path, "POST", "/sampling/rescue", body)
    assert status == 400
    assert words in str(answer)
