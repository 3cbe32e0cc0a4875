from __future__ import annotations

import asyncio
import math
import time
from hashlib import blake2b

import orjson
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.component import Kind
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.exporters.managed import FACTORY, Config, ManagedExporter
from otelwp_agent.exporters.managed.hints import VALID_FOR, Hints
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.advice import SamplingAdvice
from otelwp_agent.sampling.trace_sampler import TraceSampler
from otelwp_agent.testing import FakeClock, NoHost
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.compression import decompress
from tests.kit.http_peer import HttpPeer, Seen, response

BODY = b"\x0a\x04\x12\x02\x12\x00" * 50


def a_batch(*encodings: str, body: bytes = BODY) -> Batch:
    return Batch(Signal.TRACES, body, 50, Origin(), [(Receipt(50), 50)], encodings)


def url(peer: HttpPeer) -> str:
    return f"http://127.0.0.1:{peer.port}"


def problem(reason: str) -> bytes:
    body = orjson.dumps({"status": 409, "reason": reason, "detail": "why"})
    return response("409 Conflict", body, content_type="application/problem+json")


def in_turn(*answers: bytes):
    left = list(answers)

    async def answer(_: Seen) -> bytes:
        return left.pop(0) if left else response()

    return answer


class Content:
    """The content of a sealed batch; each envelope says how often it was sealed."""

    def __init__(self, sealed_at: float) -> None:
        self.sealed_at = sealed_at
        self.envelope = b"envelope 0"
        self.size = 10
        self.refreshed: list[bool] = []

    async def seal_again(self, *, refresh: bool) -> bytes:
        self.refreshed.append(refresh)
        self.sealed_at = time.time()
        self.envelope = f"envelope {len(self.refreshed)}".encode()
        return self.envelope


def a_sealed_batch(age: float = 0.0) -> tuple[Batch, Content]:
    batch, content = a_batch("sealed", body=b"envelope 0"), Content(time.time() - age)
    batch.resealable = content
    return batch, content


class Sampler(TraceSampler):
    def __init__(self) -> None:
        self.advised: list[tuple[str, SamplingAdvice, float]] = []

    def advise(self, source: str, advice: SamplingAdvice, until: float) -> None:
        self.advised.append((source, advice, until))


class Host(NoHost):
    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler

    def providers(self, capability):
        return [self.sampler] if capability is TraceSampler else []


@pytest.fixture
def clock():
    return FakeClock(100.0)


@pytest.fixture
def sampler():
    return Sampler()


@pytest.fixture
async def exporter_of(clock, sampler):
    exporters = []

    async def make(**settings: object) -> ManagedExporter:
        context = make_context(Kind.EXPORTER, "managed", clock=clock, host=Host(sampler))
        exporter = FACTORY.build(Config(**settings), context)
        exporters.append(exporter)
        await exporter.start()
        return exporter

    yield make
    for exporter in exporters:
        await exporter.shutdown()


async def test_sends_the_customer_and_its_key_and_compresses_plain_bodies(exporter_of):
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=url(peer), customer_id="cust_1", api_key="wpo_secret")
        assert await exporter.export(a_batch()) == 0
    (seen,) = peer.seen
    assert seen.line == "POST /v1/traces HTTP/1.1"
    assert (seen.headers["x-customer-id"], seen.headers["x-api-key"]) == ("cust_1", "wpo_secret")
    assert seen.headers["content-encoding"] == "zstd"
    assert decompress("zstd", seen.body, 2**20) == BODY
    assert "wpo_secret" not in repr(Config(endpoint=url(peer), api_key="wpo_secret"))


async def test_a_retry_has_the_same_message_id_and_another_batch_another(exporter_of):
    async with HttpPeer(in_turn(response("503 Service Unavailable"))) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        batch = a_batch()
        with pytest.raises(RetryableError):
            await exporter.export(batch)
        await exporter.export(batch)
        await exporter.export(a_batch(body=BODY + BODY))
        await exporter.export(a_batch("zstd"))
    ids = [seen.headers["idempotency-key"] for seen in peer.seen]
    assert ids[0] == ids[1] == ids[3] == blake2b(BODY, digest_size=16).hexdigest()
    assert ids[2] != ids[0]
    assert {"x-customer-id", "x-api-key"}.isdisjoint(peer.seen[0].headers)


async def test_the_next_region_is_used_until_the_first_one_answers_again(exporter_of, clock):
    async with HttpPeer() as second:
        async with HttpPeer() as first:
            exporter = await exporter_of(
                endpoint=url(first), fallback_endpoints=[url(second)], return_after="30s", compression="none"
            )
            await exporter.export(a_batch())
        with capture_logs() as logs:
            await exporter.export(a_batch())
            await exporter.export(a_batch())
        assert (len(first.seen), len(second.seen)) == (1, 2)
        assert [(line["event"], line["position"]) for line in logs] == [("another endpoint answers", 1)]
        assert exporter.context.registry.value("otelwp_managed_endpoint", exporter="managed") == 1
        async with HttpPeer(port=first.port) as again:
            clock.now += 29
            await exporter.export(a_batch())
            assert not again.seen
            clock.now += 1
            await exporter.export(a_batch())
            await exporter.export(a_batch())
            assert (len(again.seen), len(second.seen)) == (2, 3)
        assert exporter.context.registry.value("otelwp_managed_endpoint", exporter="managed") == 0


async def test_a_region_that_is_unavailable_is_left_out_but_too_many_requests_count_everywhere(exporter_of):
    unavailable = response("503 Service Unavailable")
    async with HttpPeer(unavailable) as first, HttpPeer() as second:
        exporter = await exporter_of(endpoint=url(first), fallback_endpoints=[url(second)])
        assert await exporter.export(a_batch()) == 0
        assert (len(first.seen), len(second.seen)) == (1, 1)
    async with HttpPeer(response("429 Too Many", retry_after="7")) as first, HttpPeer() as second:
        exporter = await exporter_of(endpoint=url(first), fallback_endpoints=[url(second)])
        with pytest.raises(Overloaded) as caught:
            await exporter.export(a_batch())
        assert caught.value.retry_after == 7
        assert not second.seen
    async with HttpPeer(unavailable) as first, HttpPeer(unavailable) as second:
        exporter = await exporter_of(endpoint=url(first), fallback_endpoints=[url(second)])
        with pytest.raises(RetryableError, match="503"):
            await exporter.export(a_batch())
    with pytest.raises(RetryableError, match="cannot connect"):
        await exporter.export(a_batch())


def test_an_attempt_has_time_for_every_endpoint():
    config = Config(endpoint="http://a", fallback_endpoints=["http://b", "http://c"], timeout="2s")
    assert config.attempt_timeout == 6.0
    assert FACTORY.build(config, make_context(Kind.EXPORTER, "managed")).throttled_by_tenant


@pytest.mark.parametrize("reason", ["unknown_key", "wrong_suite", "altered", "stale"])
async def test_a_refused_envelope_is_sealed_again_and_keys_are_refreshed_if_they_are_the_reason(exporter_of, reason):
    batch, content = a_sealed_batch()
    async with HttpPeer(in_turn(problem(reason))) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        await exporter.export(batch)
    assert [seen.body for seen in peer.seen] == [b"envelope 0", b"envelope 1"]
    assert all(seen.headers["content-type"] == "application/vnd.otelwp.sealed" for seen in peer.seen)
    assert all("idempotency-key" not in seen.headers for seen in peer.seen)
    assert content.refreshed == [reason != "stale"]
    registry = exporter.context.registry
    assert registry.value("otelwp_managed_refused_envelopes", reason=reason) == 1
    assert registry.value("otelwp_managed_resealed_batches") == 1


async def test_an_old_envelope_is_sealed_again_before_it_is_sent(exporter_of):
    batch, content = a_sealed_batch(age=61)
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=url(peer))
        await exporter.export(batch)
        await exporter.export(batch)
    assert [seen.body for seen in peer.seen] == [b"envelope 1", b"envelope 1"]
    assert content.refreshed == [False]


@pytest.mark.parametrize(
    ("reason", "own", "kind"),
    [
        ("unknown_key", True, RetryableError),
        ("unknown_key", False, RetryableError),
        ("stale", True, RetryableError),
        ("stale", False, PermanentError),
        ("altered", True, PermanentError),
        ("other_tenant", True, PermanentError),
        ("malformed", False, PermanentError),
    ],
)
async def test_an_envelope_that_is_always_refused(exporter_of, reason, own, kind):
    batch, _ = a_sealed_batch()
    if not own:
        batch.resealable = None  # sealed by another agent, which has the content
    async with HttpPeer(problem(reason)) as peer:
        exporter = await exporter_of(endpoint=url(peer))
        with pytest.raises(kind, match="why") as caught:
            await exporter.export(batch)
    assert len(peer.seen) == 3
    assert caught.value.reason == f"sealed_{reason}"
    assert {seen.body for seen in peer.seen} == (
        {b"envelope 0"} if not own else {b"envelope 0", b"envelope 1", b"envelope 2"}
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"reason": 1}', b'{"reason": "invented"}', b"{"])
async def test_other_problems_are_no_refusals_of_envelopes(exporter_of, body):
    batch, content = a_sealed_batch()
    answer = response("403 Forbidden", body, content_type="application/problem+json")
    async with HttpPeer(answer) as peer:
        with pytest.raises(PermanentError) as caught:
            await (await exporter_of(endpoint=url(peer))).export(batch)
    assert caught.value.reason == "http_403"
    assert not content.refreshed


HINTS = {"X_OTelWP_Sampling_Rate": "0.25", "X_OTelWP_Traces_Per_Second": "50", "X_OTelWP_Configuration": "7"}


async def test_hints_reach_samplers_the_log_and_metrics(exporter_of, sampler, clock):
    answers = [response(**HINTS, X_RateLimit_Remaining="1200"), response(**HINTS), response(**HINTS), response()]
    async with HttpPeer(in_turn(*answers)) as peer:
        exporter = await exporter_of(endpoint=url(peer), configuration_version="6")
        with capture_logs() as logs:
            await exporter.export(a_batch())
            await exporter.export(a_batch())
            clock.now += 5
            await exporter.export(a_batch())
            assert exporter.context.registry.value("otelwp_managed_sampling_rate") == 0.25
            await exporter.export(a_batch())
    wanted = SamplingAdvice(0.25, 50.0)
    assert sampler.advised == [
        ("managed", wanted, 100 + VALID_FOR),
        ("managed", wanted, 105 + VALID_FOR),
        ("managed", SamplingAdvice(), 105 + VALID_FOR),
    ]
    events = [line["event"] for line in logs]
    changed = "sampling limits changed by the managed collector"
    assert events == [changed, "newer configuration available", changed]
    assert exporter.context.registry.value("otelwp_managed_items_left") == 1200


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e999"])
def test_invalid_hints_are_ignored(text):
    names = ("x-otelwp-sampling-rate", "x-otelwp-traces-per-second", "x-ratelimit-remaining")
    assert Hints.read(dict.fromkeys(names, text)) == Hints()
    assert Hints.read({"x-otelwp-sampling-rate": "7"}).advice == SamplingAdvice()
    assert Hints.read({"x-otelwp-traces-per-second": "0"}).advice.traces_per_second == math.inf


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"endpoint": "collector:4318"},
        {"endpoint": "http://a?x=1"},
        {"endpoint": "http://a", "fallback_endpoints": ["http://b", "http://a"]},
        {"endpoint": "http://a", "customer_id": "a\nb"},
        {"endpoint": "http://a", "customer_id": " a"},
        {"endpoint": "http://a", "api_key": "secret\r\nX: y"},
        {"endpoint": "http://a", "return_after": "0s"},
    ],
)
def test_invalid_settings(settings):
    with pytest.raises(ValidationError) as caught:
        Config(**settings)
    assert all("secret" not in error["msg"] for error in caught.value.errors())


async def test_a_path_prefix_is_kept_and_shutdown_ends_requests(exporter_of):
    async with HttpPeer() as peer:
        exporter = await exporter_of(endpoint=f"{url(peer)}/ingest/")
        await exporter.export(a_batch())
        assert peer.seen[0].path == "/ingest/v1/traces"
        await asyncio.gather(exporter.shutdown(), exporter.shutdown())
