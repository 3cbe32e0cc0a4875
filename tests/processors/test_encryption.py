import asyncio
import contextlib
import os
import time
from itertools import pairwise

import pytest
from pydantic import ValidationError

from otelwp_agent.component import Kind
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.encryption import FACTORY, Config
from otelwp_agent.sealing import recipient_source
from otelwp_agent.sealing.content import decode
from otelwp_agent.sealing.envelope import parse, unseal
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.testing import Catcher
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.compression import compress
from tests.kit.graphs import until
from tests.kit.key_sets import Owner, Publisher
from tests.kit.stages import batch_of

LIMIT = 2**24


@pytest.fixture
def owner():
    return Owner()


@contextlib.asynccontextmanager
async def running(**settings):
    stage = FACTORY.build(Config.model_validate(settings), make_context(Kind.PROCESSOR, "encryption"))
    stage.next = Catcher()
    await stage.start()
    try:
        yield stage
    finally:
        await stage.shutdown()


@contextlib.asynccontextmanager
async def published(owner, **settings):
    """A processor whose recipients are published by a server."""
    async with Publisher(owner.key_set()) as publisher:
        recipients = {"url": publisher.url, "public_keys": owner.public_keys, "refresh_interval": "1h"}
        async with running(recipients={**recipients, **settings.pop("recipients", {})}, **settings) as stage:
            await until(lambda: stage.source.version)
            yield stage, publisher


def opened(owner, body):
    envelope = parse(body)
    return envelope.header, decode(envelope.header, unseal(envelope, owner.ring, time.time()), LIMIT)


def value(stage, name, **labels):
    return stage.context.registry.value(f"otelwp_processor_encryption_{name}", processor="encryption", **labels)


async def test_bodies_are_sealed(owner):
    async with published(owner, customer_id="acme", agent_id="web-1") as (stage, _):
        plain = batch_of(b"resource spans" * 10, 7, signal=Signal.LOGS)
        compressed = batch_of(b"resource spans" * 10, 7)
        compressed = compressed.encoded("zstd", compress("zstd", compressed.body))
        before = time.time()
        for batch in (plain, compressed):
            stage.consume(batch)
        for batch, given in zip(stage.next.batches, (plain, compressed), strict=True):
            header, body = opened(owner, batch.body)
            assert body == b"resource spans" * 10
            assert (header.customer, header.agent, header.items, header.plain_size) == ("acme", "web-1", 7, 140)
            assert (header.signal, header.encodings) == (given.signal, given.encodings)
            assert before - 0.001 <= header.time / 1000 <= time.time()
            assert batch.encodings == (*given.encodings, "sealed")
            assert batch.shares is given.shares
            assert b"resource" not in batch.body
        assert (value(stage, "batches"), value(stage, "key_set_version")) == (2, 1)
        assert value(stage, "bytes") == 140 + len(compressed.body)
        assert value(stage, "key_sets", result="accepted") == 1
        assert stage.health().healthy


async def test_without_a_customer_it_is_the_tenant_of_the_batch(owner):
    async with published(owner) as (stage, _):
        stage.consume(batch_of(b"x", 1, origin=Origin(tenant="globex")))
        header, _ = opened(owner, stage.next.batches[0].body)
        assert header.customer == "globex"
        assert header.agent


async def test_large_bodies_are_sealed_off_the_loop(owner):
    async with published(owner) as (stage, _):
        body = os.urandom(4 * 2**20)
        stage.consume(batch_of(body, 1))
        assert stage.next.batches == []
        await until(lambda: stage.next.batches)
        assert opened(owner, stage.next.batches[0].body)[1] == body


async def test_the_suite_is_chosen():
    owner = Owner(*SealingSuite)
    for suite, number in (("newest", 2), ("X25519", 1), ("MLKEM768_X25519", 2)):
        async with published(owner, suite=suite) as (stage, _):
            stage.consume(batch_of(b"spans", 1))
            header, body = opened(owner, stage.next.batches[0].body)
            assert (header.suite, body) == (number, b"spans")


async def test_without_a_key_nothing_is_forwarded(owner):
    async with Publisher("nonsense") as publisher:
        recipients = {"url": publisher.url, "public_keys": owner.public_keys}
        async with running(recipients=recipients) as stage:
            batch = batch_of(b"spans", 1)
            assert isinstance(stage.refusal(batch), RetryableError)
            for refused in (lambda: stage.consume(batch), stage.admit):
                with pytest.raises(RetryableError, match="nothing can be encrypted") as caught:
                    refused()
                assert caught.value.reason == "no_recipient_key"
            await until(lambda: "not a key set" in stage.health().message)
            assert not stage.health().healthy
            assert stage.next.batches == []
            assert batch.shares[0][0].pending == 1
            publisher.text = owner.key_set()
            await until(lambda: stage.health().healthy)
            stage.admit()
            stage.consume(batch)
            assert len(stage.next.batches) == 1


async def test_a_batch_is_sealed_again_with_a_new_time_and_the_same_id(owner, monkeypatch):
    monkeypatch.setattr(recipient_source, "RENEW_EVERY", 0.0)
    async with published(owner) as (stage, publisher):
        stage.consume(batch_of(b"spans", 1))
        batch = stage.next.batches[0]
        content = batch.resealable
        first, _ = opened(owner, content.envelope)
        assert (content.envelope, content.size) == (batch.body, 5)
        again, _ = opened(owner, await content.seal_again(refresh=False))
        assert again.message_id == first.message_id
        assert again.time >= first.time
        assert (again.key_id, publisher.requests) == (first.key_id, 1)
        new = owner.rotate()
        publisher.text = owner.key_set()
        third, body = opened(owner, await content.seal_again(refresh=True))
        assert (third.key_id, third.message_id, body) == (new.key_id, first.message_id, b"spans")
        assert content.envelope != batch.body
        assert content.size == 5 + len(content.envelope)
        assert batch.memory == len(batch.body) + content.size


async def test_a_large_batch_is_sealed_again_in_a_thread(owner):
    async with published(owner) as (stage, _):
        body = os.urandom(2**20)
        stage.consume(batch_of(body, 1))
        await until(lambda: stage.next.batches)
        assert opened(owner, await stage.next.batches[0].resealable.seal_again(refresh=False))[1] == body


async def test_without_a_key_a_batch_cannot_be_sealed_again(owner):
    async with published(owner) as (stage, publisher):
        stage.consume(batch_of(b"spans", 1))
        owner.rotate()
        owner.keys = []
        publisher.text = owner.key_set()
        with pytest.raises(RetryableError):
            await stage.next.batches[0].resealable.seal_again(refresh=True)


async def test_keys_are_replaced_under_load(owner):
    """Nothing is lost, and each envelope opens with the newest keys while its key has not ended."""
    sent = 0
    async with published(owner, recipients={"refresh_interval": "10ms"}) as (stage, publisher):
        for _ in range(8):
            owner.rotate(overlap=60)
            publisher.text = owner.key_set()
            while stage.source.version < owner.version:
                for _ in range(5):
                    stage.consume(batch_of(b"%06d" % sent, 1))
                    sent += 1
                await asyncio.sleep(0)  # the fetches run
        found = [opened(owner, batch.body) for batch in stage.next.batches]
    assert [int(body) for _, body in found] == list(range(sent))
    used = [header.key_id for header, _ in found]
    assert len(set(used)) == 8
    assert sum(one != other for one, other in pairwise(used)) == 7, "no older key is used again"


async def test_a_file_that_cannot_be_read_prevents_the_start(tmp_path, owner):
    with pytest.raises(StartError, match="no-such-file"):
        async with running(recipients={"file": str(tmp_path / "no-such-file"), "public_keys": owner.public_keys}):
            pass


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "recipients"),
        ({"customer_id": "a" * 129}, "128 printable"),
        ({"agent_id": "a\n"}, "128 printable"),
        ({"suite": "RSA"}, "MLKEM768_X25519"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, problem):
    inline = {"keys": [{"key_id": "a", "public_key": "A" * 43}]}
    with pytest.raises(ValidationError, match=problem):
        Config.model_validate({"recipients": inline, **settings} if settings else {})
