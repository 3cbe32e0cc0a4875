import time

import pytest
import structlog

from otelwp_agent.config.recipients import RecipientsConfig
from otelwp_agent.errors import RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.sealing.content import decode
from otelwp_agent.sealing.envelope import parse, unseal
from otelwp_agent.sealing.recipient_source import RecipientSource
from otelwp_agent.sealing.sealer import Sealer
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.transport.compression import compress
from tests.kit.key_sets import Owner
from tests.kit.stages import batch_of


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


def ignore(_):
    """Count nothing."""


async def sealer_of(owner, folder, clock, customer="acme"):
    path = folder / "key-set.jws"
    path.write_text(owner.key_set())
    config = RecipientsConfig(file=str(path), public_keys=owner.public_keys)
    log = structlog.get_logger()
    source = RecipientSource(config, [*SealingSuite], name="processors/encryption", log=log, read=ignore, now=time.time)
    await source.start()
    return Sealer(source, customer, "web-1", clock)


async def test_an_envelope_says_what_the_batch_is(tmp_path):
    owner, clock = Owner(), Clock()
    sealer = await sealer_of(owner, tmp_path, clock)
    plain = batch_of(b"spans " * 50, 9)
    for batch in (plain, plain.encoded("zstd", compress("zstd", plain.body))):
        sealed = sealer.seal(batch)
        envelope = parse(sealed.body)
        header = envelope.header
        assert (header.customer, header.agent, header.items) == ("acme", "web-1", 9)
        assert (header.time, header.signal, header.plain_size) == (1_700_000_000_000, batch.signal, 300)
        assert (header.encodings, sealed.encodings) == (batch.encodings, (*batch.encodings, "sealed"))
        assert decode(header, unseal(envelope, owner.ring, time.time()), 300) == plain.body
    await sealer.source.stop()


async def test_the_customer_is_the_tenant_if_none_is_configured(tmp_path):
    sealer = await sealer_of(Owner(), tmp_path, Clock(), customer="")
    for tenant in ("", "globex"):
        sealed = sealer.seal(batch_of(b"spans", 1, origin=Origin(tenant=tenant)))
        assert parse(sealed.body).header.customer == tenant
    await sealer.source.stop()


async def test_a_batch_that_is_sealed_again_keeps_its_id_and_gets_a_new_time(tmp_path):
    clock = Clock()
    sealer = await sealer_of(Owner(), tmp_path, clock)
    sealed = sealer.seal(batch_of(b"spans", 1))
    content = sealed.resealable
    assert (content.envelope, content.sealed_at, content.size) == (sealed.body, clock.now, 5)
    clock.now += 600
    again = await content.seal_again(refresh=True)
    assert content.envelope is again
    assert (content.sealed_at, content.size) == (clock.now, 5 + len(again))
    first, second = parse(sealed.body).header, parse(again).header
    assert (second.message_id, second.time - first.time) == (first.message_id, 600_000)
    other = sealer.seal(batch_of(b"spans", 1))
    assert parse(other.body).header.message_id != first.message_id
    await sealer.source.stop()


async def test_without_a_key_nothing_is_sealed(tmp_path):
    owner = Owner()
    owner.keys = []
    sealer = await sealer_of(owner, tmp_path, Clock())
    with pytest.raises(RetryableError, match="nothing can be encrypted"):
        sealer.seal(batch_of(b"spans", 1))
    await sealer.source.stop()
