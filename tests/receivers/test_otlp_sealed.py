"""Sealed requests over HTTP: opened, or forwarded as they are; refused with what their sender has to refresh."""

import asyncio
import json
import os
import time
from dataclasses import replace

import pytest
import structlog
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.codecs.compact_jws import decode_base64url
from otelwp_agent.component import Carries, ComponentId, Context, Kind, Tier
from otelwp_agent.errors import Overloaded, StartError, UnauthenticatedError
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.otlp import FACTORY, Config
from otelwp_agent.sealing.envelope import SealedHeader, parse, seal
from otelwp_agent.sealing.key_files import opening_keys_text
from otelwp_agent.sealing.key_ring import OpeningKey
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.authentication import Client, ServerAuthenticator
from otelwp_agent.transport.compression import compress
from otelwp_agent.transport.limiting import Left, RequestAllowance, RequestLimiter
from tests.receivers.test_otlp import Agent, Pipeline, spans

PRIVATE = SealingSuite.X25519.generate()
KEY = OpeningKey("key-1", SealingSuite.X25519, PRIVATE)
RECIPIENT = Recipient("key-1", SealingSuite.X25519, SealingSuite.X25519.public_bytes(PRIVATE))
SEALED = "application/vnd.otelwp.sealed"
LIMITS = {"sampling_rate": 0.25, "traces_per_second": 50.0, "configuration": 7.0, "items_per_second": 9.0}


class Keys(ServerAuthenticator):
    """The API key is the name of the tenant."""

    secret_headers = frozenset({"x-api-key"})

    def authenticate(self, headers, peer, certificate):
        del peer, certificate
        if not (tenant := headers.get("x-api-key")):
            raise UnauthenticatedError("ApiKey")
        return Client(tenant, limits=LIMITS)


class Allowance(RequestAllowance):
    def begin(self):
        """Allow it."""

    def left(self):
        return Left(100.0, 41.9, 2.1)


class Limiter(RequestLimiter):
    def allowance(self, client, peer, route):
        return Allowance()


class Collector(Agent):
    """A receiver for sealed requests, for the customers whose API key is their name."""

    def __init__(self, folder, *, mode="open", messages=None, **config):
        keys = folder / "opening-keys.json"
        if not keys.exists():
            keys.write_bytes(opening_keys_text(1, [KEY]))
        sealed = {"mode": mode, **({"keys": str(keys)} if mode == "open" else {}), **config.pop("sealed", {})}
        http = {"endpoint": "127.0.0.1:0", "auth": {"authenticator": "keys"}, "middlewares": [{"id": "limiter"}]}
        self.registry = Registry()
        more = {} if messages is None else {"messages": messages}
        context = Context(
            ComponentId("otlp"),
            Kind.RECEIVER,
            self.registry,
            structlog.get_logger(),
            time.monotonic,
            None,
            extensions={ComponentId("keys"): Keys(), ComponentId("limiter"): Limiter()},
            **more,
        )
        settings = {"protocols": {"http": http | config.pop("http", {})}, "sealed": sealed, **config}
        self.receiver = FACTORY.build(Config.model_validate(settings), context)
        self.pipelines = {signal: Pipeline() for signal in Signal}
        self.receiver.next = self.pipelines

    async def send(self, body, tenant="acme", path="/v1/traces", **headers):
        headers = {"X_API_Key": tenant, **headers} if tenant else headers
        return await self.post(path, body, SEALED, **headers)

    async def refusal(self, body, **options):
        """Send what is refused; return the status and the problem."""
        status, headers, answer = await self.send(body, **options)
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(answer)
        assert problem["status"] == status
        assert self.refused(problem["reason"]) >= 1
        return status, problem["reason"], problem.get("refresh")

    @property
    def batches(self):
        return self.pipelines[Signal.TRACES].batches


def header(plain, items=1, age=0.0, **more):
    now = int((time.time() - age) * 1000)
    return SealedHeader(
        **{"customer": "acme", "time": now, "signal": Signal.TRACES, "items": items, "plain_size": len(plain)} | more
    )


def sealed(plain=None, items=1, coding="zstd", recipient=RECIPIENT, **more):
    plain = spans(items).SerializeToString() if plain is None else plain
    encodings = (coding,) if coding else ()
    return seal(recipient, header(plain, items, encodings=encodings, **more), compress(coding, plain))


@pytest.mark.parametrize("coding", ["zstd", "gzip", ""])
async def test_an_envelope_is_opened_and_its_spans_arrive_as_they_were(tmp_path, coding):
    async with Collector(tmp_path) as collector:
        status, headers, answer = await collector.send(sealed(items=3, coding=coding), X_Customer_ID="acme")
    assert (status, answer, headers["content-type"]) == (200, b"", "application/x-protobuf")
    (batch,) = collector.batches
    assert (batch.body, batch.items, batch.encodings) == (spans(3).SerializeToString(), 3, ())
    assert (batch.origin.tenant, [items for _, items in batch.shares]) == ("acme", [3])
    assert collector.registry.value("otelwp_receiver_sealed_requests", receiver="otlp", mode="open") == 1


async def test_a_large_one_is_opened_in_a_thread_while_others_are_served(tmp_path):
    async with Collector(tmp_path) as collector:
        large = asyncio.ensure_future(collector.send(sealed(items=100_000)))
        small = 0
        while not large.done():
            small += (await collector.send(sealed()))[0] == 200
        assert (await large)[0] == 200
        assert small > 1
        assert max(batch.items for batch in collector.batches) == 100_000


async def test_the_answer_has_the_hints_of_the_plan_and_the_items_left(tmp_path):
    async with Collector(tmp_path) as collector:
        _, headers, _ = await collector.send(sealed())
        assert headers["x-otelwp-sampling-rate"] == "0.25"
        assert headers["x-otelwp-traces-per-second"] == "50"
        assert headers["x-otelwp-configuration"] == "7"
        limits = [headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
        assert limits == ["100", "41", "3"]
        _, headers, _ = await collector.post("/v1/traces", spans().SerializeToString(), X_API_Key="acme")
        assert headers["x-otelwp-sampling-rate"] == "0.25"  # the plugin posts without sealing, and learns it, too


async def test_a_message_that_is_sent_again_is_acknowledged_and_processed_once(tmp_path):
    body = sealed()
    resealed = seal(
        RECIPIENT,
        replace(parse(body).header, time=int(time.time() * 1000) + 1),
        compress("zstd", spans().SerializeToString()),
    )
    async with Collector(tmp_path) as collector:
        answers = [await collector.send(each) for each in (body, body, resealed)]
        assert [status for status, _, _ in answers] == [200, 200, 200]
        assert ["x-otelwp-duplicate" in headers for _, headers, _ in answers] == [False, True, True]
        assert len(collector.batches) == 1
        assert (await collector.send(sealed(message_id=parse(body).header.message_id, customer="globex"), "globex"))[
            0
        ] == 200
        assert len(collector.batches) == 2
        assert collector.registry.value("otelwp_receiver_duplicate_requests") == 2


async def test_a_message_that_the_pipeline_refused_may_be_sent_again(tmp_path):
    body = sealed()
    async with Collector(tmp_path) as collector:
        collector.pipelines[Signal.TRACES].refusal = None
        collector.receiver.next = {Signal.TRACES: Refusing(collector.pipelines[Signal.TRACES])}
        status, reason, _ = await collector.refusal(body)
        assert (status, reason) == (429, "overloaded")
        assert (await collector.send(body))[0] == 200
    assert len(collector.batches) == 1


async def test_a_plan_without_encryption_is_refused_with_the_tier_that_is_needed(tmp_path):
    async with Collector(tmp_path) as collector:
        collector.receiver.context.tenant_tiers.add({"acme": Tier.PRO, "globex": Tier.ENTERPRISE}.get)
        assert await collector.refusal(sealed()) == (403, "plan_tier", "plan")
        _, _, answer = await collector.send(sealed())
        assert "need a plan of tier `enterprise`, but the plan of this tenant has tier `pro`" in answer.decode()
        assert "send without the processor `encryption`" in answer.decode()
        assert (await collector.send(sealed(customer="globex"), "globex"))[0] == 200
        plain = await collector.post("/v1/traces", spans().SerializeToString(), X_API_Key="acme")
        assert plain[0] == 200


class Refusing:
    """A pipeline without capacity for the first batch, which it finds out when it gets it."""

    def __init__(self, after):
        self.after, self.full = after, True

    def admit(self):
        """Accept every request."""

    def consume(self, batch, answer=None, rejected=None):
        if self.full:
            self.full = False
            raise Overloaded("full", retry_after=1.0)
        self.after.consume(batch, answer, rejected)


OTHER = Recipient("key-2", SealingSuite.X25519, RECIPIENT.public)
HYBRID = SealingSuite.MLKEM768_X25519
REFUSED = {
    "other_tenant": (lambda: sealed(customer="globex"), 403, "credential"),
    "unknown_key": (lambda: sealed(recipient=OTHER), 409, "key_set"),
    "stale": (lambda: sealed(age=301), 409, "time"),
    "wrong_suite": (
        lambda: sealed(recipient=Recipient("key-1", HYBRID, HYBRID.public_bytes(HYBRID.generate()))),
        409,
        "key_set",
    ),
    "altered": (lambda: sealed()[:-1] + b"\0", 400, "key_set"),
    "malformed": (lambda: b"OWS2 nothing", 400, None),
    "too_large": (lambda: sealed(plain=b"\0" * (21 * 2**20)), 413, None),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_refused_with_the_reason_and_what_to_refresh(tmp_path, reason):
    make, status, refresh = REFUSED[reason]
    async with Collector(tmp_path) as collector:
        assert await collector.refusal(make()) == (status, reason, refresh)
        assert not collector.batches
        assert collector.registry.value("otelwp_receiver_sealed_requests") == 0
        assert (await collector.send(sealed()))[0] == 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: sealed(age=-301),
        lambda: sealed(signal=Signal.LOGS),
        lambda: sealed(signal=None),
        lambda: sealed(purpose="journal"),
        lambda: sealed(content_type="application/json"),
        lambda: seal(RECIPIENT, header(spans().SerializeToString(), items=7), spans().SerializeToString()),
        lambda: sealed(plain=b"\xff\xff", items=1),
        lambda: seal(RECIPIENT, header(b"x" * 100, encodings=("zstd",)), compress("zstd", b"\0" * 10_000_000)),
        lambda: seal(RECIPIENT, header(b"x" * 100, encodings=("brotli",)), b"x" * 100),
        lambda: b"",
        lambda: os.urandom(1000),
    ],
)
async def test_more_envelopes_that_are_refused(tmp_path, make):
    async with Collector(tmp_path) as collector:
        status, reason, _ = await collector.refusal(make())
        assert 400 <= status < 500
        assert reason in {"malformed", "stale", "too_large"}
        assert not collector.batches


async def test_the_customer_of_the_request_must_be_the_one_of_the_key(tmp_path):
    async with Collector(tmp_path) as collector:
        status, _, _ = await collector.send(sealed(), X_Customer_ID="globex")
        assert status == 403
        status, _, _ = await collector.send(sealed(), tenant="")
        assert status == 401
        assert not collector.batches


async def test_new_keys_are_used_without_a_restart_and_old_ones_open_until_their_end(tmp_path):
    second = SealingSuite.X25519.generate()
    new = Recipient("key-2", SealingSuite.X25519, SealingSuite.X25519.public_bytes(second))
    file = tmp_path / "opening-keys.json"
    async with Collector(tmp_path) as collector:
        assert (await collector.refusal(sealed(recipient=new)))[1] == "unknown_key"
        old_ends = OpeningKey("key-1", SealingSuite.X25519, PRIVATE, not_after=time.time() + 3600)
        file.write_bytes(opening_keys_text(2, [old_ends, OpeningKey("key-2", SealingSuite.X25519, second)]))
        collector.receiver.refresh()
        assert [(await collector.send(sealed(recipient=each)))[0] for each in (RECIPIENT, new)] == [200, 200]
        ended = OpeningKey("key-1", SealingSuite.X25519, PRIVATE, not_after=time.time() - 1)
        file.write_bytes(opening_keys_text(3, [ended, OpeningKey("key-2", SealingSuite.X25519, second)]))
        collector.receiver.refresh()
        assert (await collector.refusal(sealed()))[1] == "unknown_key"
        file.write_text("{")
        collector.receiver.refresh()  # is logged, and the keys before stay
        assert (await collector.send(sealed(recipient=new)))[0] == 200


async def test_without_keys_it_does_not_start(tmp_path):
    (tmp_path / "opening-keys.json").write_text("no keys")
    with pytest.raises(StartError, match=r"opening-keys\.json"):
        async with Collector(tmp_path):
            pass


# -- tenant-blind


async def test_blind_it_forwards_the_envelope_as_it_is_and_counts_by_its_header(tmp_path):
    body = sealed(items=5)
    async with Collector(tmp_path, mode="forward") as collector:
        answers = [await collector.send(body), await collector.send(body)]
        assert [status for status, _, _ in answers] == [200, 200]
        assert collector.registry.value("otelwp_receiver_sealed_requests", mode="forward") == 1
    (batch,) = collector.batches
    assert (batch.body, batch.items, batch.encodings) == (body, 5, ("zstd", "sealed"))
    assert batch.origin.tenant == "acme"
    assert (
        FACTORY.config.model_validate({"protocols": {"http": None}, "sealed": {"mode": "forward"}}).encodes()
        is Carries.ENCODED
    )


@pytest.mark.parametrize("reason", ["other_tenant", "stale", "malformed", "too_large"])
async def test_blind_it_refuses_what_the_header_shows(tmp_path, reason):
    make, status, refresh = REFUSED[reason]
    async with Collector(tmp_path, mode="forward") as collector:
        assert await collector.refusal(make()) == (status, reason, refresh)


async def test_blind_it_refuses_more_items_than_a_request_may_have(tmp_path):
    async with Collector(tmp_path, mode="forward", max_items_per_request=4) as collector:
        assert (await collector.refusal(sealed(items=5)))[0] == 413
        plain = spans().SerializeToString()
        wrong = seal(RECIPIENT, header(plain, plain_size=len(plain) + 1), plain)
        assert (await collector.refusal(wrong))[1] == "malformed"
        assert (await collector.send(sealed(items=0, plain=b"")))[0] == 200
        assert not collector.batches


# -- requests that are not sealed


async def test_plain_requests_with_the_same_idempotency_key_are_processed_once(tmp_path):
    async with Collector(tmp_path) as collector:
        for kind, body in (
            ("application/x-protobuf", spans(2).SerializeToString()),
            (
                "application/json",
                b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"%s"}]}]}]}'
                % (b"ab" * 16, b"cd" * 8),
            ),
        ):
            before = len(collector.batches)
            answers = [
                await collector.post("/v1/traces", body, kind, X_API_Key="acme", Idempotency_Key=kind) for _ in range(2)
            ]
            assert [status for status, _, _ in answers] == [200, 200]
            assert ["x-otelwp-duplicate" in headers for _, headers, _ in answers] == [False, True]
            assert answers[1][1]["content-type"] == kind
            assert len(collector.batches) == before + 1
        status, _, _ = await collector.post("/v1/traces", b"", X_API_Key="acme", Idempotency_Key="x" * 500)
        assert status == 400


async def test_without_the_settings_envelopes_and_keys_of_requests_mean_nothing():
    async with Agent() as agent:
        assert (await agent.post("/v1/traces", sealed(), SEALED))[0] == 415
        for _ in range(2):
            assert (await agent.post("/v1/traces", spans().SerializeToString(), Idempotency_Key="k"))[0] == 200
        assert len(agent.pipelines[Signal.TRACES].batches) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sealed": {}}, "keys"),
        ({"sealed": {"mode": "forward", "keys": "/k"}}, "remove `keys`"),
        ({"sealed": {"mode": "forward", "freshness": "11m"}}, "deduplication.remember"),
        ({"deduplication": {"max_total": 0}}, "max_total"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate({"protocols": {"http": None}, **settings})


async def test_the_first_key_is_created_and_the_log_says_what_senders_need(tmp_path):
    folder = tmp_path / "new"
    settings = {"keys": str(folder / "opening-keys.json"), "create": True}
    with capture_logs() as logs:
        async with Collector(tmp_path, sealed=settings):
            pass
    (created,) = [line for line in logs if line["event"] == "sealing key created"]
    public = decode_base64url(created["public_key"])
    recipient = Recipient(created["key_id"], SealingSuite.X25519, public)
    file = folder / "opening-keys.json"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    async with Collector(tmp_path, sealed=settings) as collector:  # with the same key
        assert (await collector.send(sealed(recipient=recipient)))[0] == 200
    assert file.read_bytes() == before


async def test_a_key_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"sealed\.keys"):
        async with Collector(tmp_path, sealed={"keys": str(tmp_path / "file/keys.json"), "create": True}):
            pass
