import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from otelwp_agent.component import Kind, encoding
from otelwp_agent.component.encoding import EncodingProcessor
from otelwp_agent.errors import MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.testing import Catcher
from otelwp_agent.testing.fakes import make_context
from tests.kit.graphs import until
from tests.kit.stages import batch_of

LARGE = 200_000


class Reversing(EncodingProcessor):
    """Reverses bodies; in a thread, it waits for `go`."""

    def __init__(self):
        super().__init__(make_context(Kind.PROCESSOR, "compression"))
        self.go = threading.Event()
        self.go.set()
        self.errors = []
        self.threads = set()
        self.next = Catcher()
        self.problem = None

    def encode(self, batch):
        self.threads.add(threading.current_thread() is threading.main_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.go.wait(60)
        if self.errors:
            raise self.errors.pop(0)
        return batch.encoded("reversed", batch.body[::-1])

    def unable(self):
        return self.problem

    @property
    def held(self):
        return self._held, self.context.in_flight.used


def body_of(number, size=LARGE):
    return b"%06d" % number + b"x" * (size - 6)


def batch(number, size=LARGE, tenant=""):
    return batch_of(body_of(number, size), 10, origin=Origin(tenant=tenant))


def numbers(stage):
    return [int(one.body[::-1][:6]) for one in stage.next.batches]


async def test_small_bodies_are_encoded_at_once():
    stage = Reversing()
    stage.consume(batch(1, 1000))
    assert (numbers(stage), stage.threads, stage.held) == ([1], {True}, (0, 0))
    assert stage.next.batches[0].encodings == ("reversed",)


async def test_large_bodies_are_encoded_in_threads_and_forwarded_in_order():
    stage = Reversing()
    stage.go.clear()
    for number in range(8):
        stage.consume(batch(number))
    assert (numbers(stage), stage.held) == ([], (8 * LARGE, 8 * LARGE))
    stage.consume(batch(99, 1000))
    assert numbers(stage) == [99], "the loop is free"
    stage.go.set()
    await until(lambda: stage.held == (0, 0))
    assert numbers(stage) == [99, *range(8)]
    assert stage.threads == {True, False}
    await stage.shutdown()


async def test_what_is_large_is_measured():
    stage = Reversing()
    first = stage._bytes_on_loop
    for number in range(20):
        stage._measure(batch(number), batch(number), 0.2)
    assert 1000 < stage._bytes_on_loop < 2000 < first, "200 KB in 0.2 s: a millisecond is 1000 bytes"
    for number in range(30):
        stage._measure(batch(number), batch(number), 0.0002)
    assert stage._bytes_on_loop > 900_000
    stage._measure(batch(1, 100), batch(1, 100), 1.0)
    assert stage._bytes_on_loop > 900_000, "a small body shows the cost per call"


async def test_the_refusal_of_the_next_stage_comes_before_the_work():
    stage = Reversing()
    stage.next.error = Overloaded("full")
    for size in (1000, LARGE):
        assert isinstance(stage.refusal(batch(1, size)), Overloaded)
        with pytest.raises(Overloaded):
            stage.consume(batch(1, size))
    assert stage.threads == set()


async def test_what_is_refused_after_its_encoding_is_offered_again():
    stage = Reversing()
    stage.next.errors = []
    stage.go.clear()
    given = [batch(number) for number in range(3)]
    for one in given:
        stage.consume(one)
    stage.next.error = Overloaded("full")
    stage.go.set()
    await until(lambda: not any(entry.running for entry in stage._tenants[""].entries))
    await asyncio.sleep(0.02)  # some offers are refused
    assert numbers(stage) == []
    stage.next.error = None
    await until(lambda: len(stage.next.batches) == 3)
    assert numbers(stage) == [0, 1, 2]
    assert all(receipt.pending == 10 for one in given for receipt, _ in one.shares)
    await stage.shutdown()


async def test_one_tenant_does_not_wait_for_another():
    stage = Reversing()
    stage.go.clear()
    stage.consume(batch(1, tenant="acme"))
    stage.consume(batch(2, tenant="globex"))
    stage.next.consume, accept = lambda one: refuse_acme(one, accept), stage.next.consume
    full = [True]

    def refuse_acme(one, accept):
        if full[0] and one.origin.tenant == "acme":
            raise Overloaded("full", tenant="acme")
        accept(one)

    stage.go.set()
    await until(lambda: numbers(stage) == [2])
    full[0] = False
    await until(lambda: numbers(stage) == [2, 1])
    await stage.shutdown()


async def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_HELD", 5 * LARGE)
    stage = Reversing()
    stage.go.clear()
    for number in range(5):
        stage.consume(batch(number))
    assert isinstance(stage.refusal(batch(6)), Overloaded)
    with pytest.raises(Overloaded, match="processor compression cannot encode large batches as fast as") as caught:
        stage.consume(batch(6))
    assert caught.value.tenant == ""
    admitted = batch(7)
    admitted.admitted = True
    stage.consume(admitted)
    stage.consume(batch(8, 1000))
    stage.go.set()
    await until(lambda: not caught.value.capacity.full)
    await until(lambda: stage.held == (0, 0))
    assert numbers(stage) == [8, 0, 1, 2, 3, 4, 7]
    stage.consume(batch(9, 9 * LARGE))
    await stage.shutdown()
    assert numbers(stage)[-1] == 9, "a body larger than the limit is accepted alone"


async def test_a_tenant_gets_a_share_only(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_HELD", 6 * LARGE)
    stage = Reversing()
    stage.go.clear()
    for number in range(3):
        stage.consume(batch(number, tenant="acme"))
    with pytest.raises(Overloaded) as caught:
        stage.consume(batch(4, tenant="acme"))
    assert caught.value.tenant == "acme"
    stage.consume(batch(7, tenant="globex"))
    stage.go.set()
    await stage.shutdown()
    assert len(stage.next.batches) == 4


async def test_a_body_that_cannot_be_encoded_is_dropped_alone():
    stage = Reversing()
    stage.go.clear()
    given = [batch(number) for number in range(3)]
    for one in given:
        stage.consume(one)
    stage.errors = [MalformedError("no"), ZeroDivisionError()]
    with capture_logs() as logs:
        stage.go.set()
        await stage.shutdown()
    outcomes = [receipt.worst for one in given for receipt, _ in one.shares if not receipt.pending]
    assert outcomes == [Outcome.DROPPED] * 2
    assert len(numbers(stage)) == 1
    assert {log["reason"] for log in logs} <= {"malformed", "internal_error"}
    assert logs


async def test_what_cannot_be_encoded_now_is_encoded_later():
    stage = Reversing()
    stage.go.clear()
    stage.consume(batch(1))
    stage.errors = [RetryableError("no key")] * 3
    stage.go.set()
    await until(lambda: numbers(stage) == [1])
    assert stage.errors == []
    stage.problem = RetryableError("no key")
    assert stage.refusal(batch(2, 10)) is stage.problem
    for size in (10, LARGE):
        with pytest.raises(RetryableError):
            stage.consume(batch(2, size))
    with pytest.raises(RetryableError):
        stage.admit()
    await stage.shutdown()


async def test_a_shutdown_that_is_cancelled_drops_what_is_left():
    stage = Reversing()
    stage.go.clear()
    given = [batch(number, tenant=str(number)) for number in range(2)]
    for one in given:
        stage.consume(one)
    with capture_logs() as logs, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stage.shutdown()
    assert [(log["reason"], log["items"]) for log in logs] == [("shutdown", 20)]
    assert stage.held == (0, 0)
    stage.go.set()
    await asyncio.sleep(0.05)  # the threads end, and their results are not used
    assert numbers(stage) == []
    await stage.shutdown()


async def test_after_a_reload_refused_batches_go_to_the_new_next_stage():
    stage = Reversing()
    stage.go.clear()
    stage.consume(batch(1))
    error = Overloaded("full", capacity=stage._capacity)
    stage.next.error = error
    stage.go.set()
    await until(lambda: stage._tenants[""].offer.waiting)
    stage.next = Catcher()
    stage.rewired()
    assert numbers(stage) == [1]
    await stage.shutdown()
