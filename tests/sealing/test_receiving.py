"""tests/receivers/test_otlp_sealed.py tests it with the receiver and requests; these are the parts without them."""

import time

import pytest
import structlog

from otelwp_agent.config.blocks import Deduplication, Sealed
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.checking import checker
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker
from otelwp_agent.sealing.deduplication import Deduplicator
from otelwp_agent.sealing.envelope import SealedHeader, seal
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.message_memory import MessageMemory
from otelwp_agent.sealing.receiving import SealedBodies
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.decoding import Decoding
from otelwp_agent.transport.http_messages import Head, Response
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.otlp_answers import OtlpRoute

OK, AGAIN = Response(200), Response(200)
HEAD = Head("POST", "/v1/traces", {})


def the_bodies(now):
    registry, log = Registry(), structlog.get_logger()
    memory = Deduplicator(Deduplication(), MessageMemory(), "otlp", registry, now)
    return SealedBodies(
        Sealed(mode="forward"),
        memory,
        name="receivers/otlp",
        receiver="otlp",
        max_items=10,
        max_bytes=1000,
        decoding=Decoding(InFlight(), log),
        registry=registry,
        log=log,
        now=now,
    )


def an_envelope(**more):
    recipient = Recipient("k", SealingSuite.X25519, SealingSuite.X25519.public_bytes(SealingSuite.X25519.generate()))
    header = SealedHeader(
        **{"customer": "acme", "time": int(time.time() * 1000), "signal": Signal.TRACES, "items": 1, "plain_size": 3}
        | more
    )
    return seal(recipient, header, b"abc")


def the_route(batches):
    def forward(batch, head, ok):
        batches.append(batch)
        return ok

    return OtlpRoute(
        Signal.TRACES, checker(Signal.TRACES), StepwiseChecker(Signal.TRACES), forward, lambda _reason: None
    )


def test_without_authentication_the_customer_of_the_envelope_tells_messages_apart():
    bodies, batches = the_bodies(time.time), []
    ids = {"message_id": b"1" * 16}
    for customer, answer in (("acme", OK), ("globex", OK), ("acme", AGAIN)):
        body = an_envelope(customer=customer, **ids)
        assert bodies.read(the_route(batches), body, HEAD, Origin("otlp"), (OK, AGAIN)) is answer
    assert [batch.message.tenant for batch in batches] == ["acme", "globex"]


@pytest.mark.parametrize(
    ("skew", "fresh"), [(0, True), (299, True), (301, False), (-299, True), (-301, False), (7200, False)]
)
def test_a_clock_that_is_wrong(skew, fresh):
    bodies, batches = the_bodies(lambda: time.time() + skew), []
    if fresh:
        assert bodies.read(the_route(batches), an_envelope(), HEAD, Origin("otlp"), (OK, AGAIN)) is OK
        return
    with pytest.raises(SealedError) as caught:
        bodies.read(the_route(batches), an_envelope(), HEAD, Origin("otlp"), (OK, AGAIN))
    assert caught.value.reason == "stale"
    assert not batches
