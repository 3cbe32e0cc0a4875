from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.attempts import ExporterBugError, Tries
from otelwp_agent.sending.breaker import Permit, State
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.metrics import ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.testing import FakeTimeLoop
from tests.kit.senders import EXACT, Destination, a_request, scripted


@pytest.fixture
def loop():
    loop = FakeTimeLoop()
    yield loop
    loop.close()


class Stage:
    def __init__(self, loop: FakeTimeLoop, answer, timeout: float = 5) -> None:
        exporter = Destination(answer, loop.time)
        context = exporter.context
        self.loop = loop
        self.breaker = breaker_of(context, EXACT, lambda: 0.5)
        self.concurrency = Concurrency(1, 8)
        queue = SendingQueue(Queue(), "x")
        self.metrics = ExporterMetrics(context, Signal.TRACES, queue, self.breaker, self.concurrency)
        self.tries = Tries(exporter, self.metrics, self.breaker, self.concurrency, timeout)
        self.exporter = exporter

    def once(self, permit: Permit = Permit.TRY) -> int:
        return self.loop.run_until_complete(self.tries.once(a_request("a"), permit))


def test_says_how_many_were_rejected(loop):
    assert Stage(loop, scripted(3)).once() == 3


@pytest.mark.parametrize(
    ("raised", "seen", "reason"),
    [
        (RetryableError("busy", reason="http_503"), RetryableError, "http_503"),
        (Overloaded("busy", reason="http_429"), Overloaded, "http_429"),
        (MalformedError("400"), MalformedError, "malformed"),
        (TimeoutError(), RetryableError, "timeout"),
        (ConnectionResetError("reset"), RetryableError, "os_error"),
        (asyncio.CancelledError(), RetryableError, "cancelled"),
        (ZeroDivisionError(), ExporterBugError, "internal_error"),
    ],
)
def test_whatever_goes_wrong_has_a_name(loop, raised, seen, reason):
    stage = Stage(loop, scripted(raised))
    with pytest.raises(seen) as error:
        stage.once()
    assert type(error.value) is seen
    assert error.value.reason == reason
    assert stage.exporter.context.registry.expose().count("otelwp_exporter_send_duration_seconds_count") == 1


def test_a_try_that_takes_too_long_says_how_long(loop):
    async def hang(_: list[str]) -> int:
        await asyncio.sleep(1000)
        return 0

    with pytest.raises(RetryableError, match="no answer within 5s"):
        Stage(loop, hang).once()
    assert loop.time() == 5


@pytest.mark.parametrize(
    ("error", "failures", "limit"),
    [
        (RetryableError("busy"), 1, 4),
        (Overloaded("busy"), 0, 4),
        (PermanentError("no"), 0, 8),
        (ZeroDivisionError(), 0, 8),
    ],
)
def test_who_learns_what_from_a_failure(loop, error, failures, limit):
    stage = Stage(loop, scripted(error))
    with pytest.raises((RetryableError, PermanentError)):
        stage.once()
    assert stage.breaker._failures == failures
    assert stage.concurrency.limit == limit


def test_the_other_sides_word_reaches_the_breaker(loop):
    stage = Stage(loop, scripted(Overloaded("busy", retry_after=9)))
    with pytest.raises(Overloaded):
        stage.once()
    assert (stage.breaker.state, stage.breaker.until) == (State.CLOSED, 9)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, State.CLOSED),
        (PermanentError("no"), State.CLOSED),
        (Overloaded("busy", retry_after=3), State.CLOSED),
        (RetryableError("busy"), State.OPEN),
        (ZeroDivisionError(), State.OPEN),
    ],
)
def test_a_probe_decides(loop, error, state):
    stage = Stage(loop, scripted(error or 0))
    for _ in range(5):
        stage.breaker.failed(Permit.TRY, 0)
    permit = stage.breaker.acquire(5)
    assert permit is Permit.PROBE
    try:
        stage.once(permit)
    except (RetryableError, PermanentError):
        assert error is not None
    assert stage.breaker.state is state


def test_a_probe_whose_worker_is_stopped_gives_its_permit_back(loop):
    async def hang(_: list[str]) -> int:
        await asyncio.sleep(1000)
        return 0

    stage = Stage(loop, hang)
    for _ in range(5):
        stage.breaker.failed(Permit.TRY, 0)

    async def scenario():
        task = asyncio.ensure_future(stage.tries.once(a_request("a"), stage.breaker.acquire(5)))
        await asyncio.sleep(1)
        assert stage.breaker.state is State.HALF_OPEN
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    loop.run_until_complete(scenario())
    assert stage.breaker.acquire(loop.time()) is Permit.PROBE
