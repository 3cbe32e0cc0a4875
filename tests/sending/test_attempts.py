from __future__ import annotations

import asyncio

import pytest

from otelwp_agent.errors import MalformedError, Overloaded, PermanentError, RetryableError
from otelwp_agent.sending.attempts import ExporterBugError
from otelwp_agent.sending.breaker import Permit, State
from tests.kit.attempts import AttemptStage
from tests.kit.senders import a_request, scripted


def test_says_how_many_were_rejected(loop):
    assert AttemptStage(loop, scripted(3)).once() == 3


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
    stage = AttemptStage(loop, scripted(raised))
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
        AttemptStage(loop, hang).once()
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
    stage = AttemptStage(loop, scripted(error))
    with pytest.raises((RetryableError, PermanentError)):
        stage.once()
    assert stage.breaker._failures == failures
    assert stage.concurrency.limit == limit


def test_the_other_sides_word_reaches_the_breaker(loop):
    stage = AttemptStage(loop, scripted(Overloaded("busy", retry_after=9)))
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
    stage = AttemptStage(loop, scripted(error or 0))
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

    stage = AttemptStage(loop, hang)
    for _ in range(5):
        stage.breaker.failed(Permit.TRY, 0)

    async def scenario():
        task = asyncio.ensure_future(stage.attempts.once(a_request("a"), stage.breaker.acquire(5)))
        await asyncio.sleep(1)
        assert stage.breaker.state is State.HALF_OPEN
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    loop.run_until_complete(scenario())
    assert stage.breaker.acquire(loop.time()) is Permit.PROBE


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError("connection reset"), "connection reset"),
        (asyncio.CancelledError(), "the exporter cancelled the attempt"),
        (ZeroDivisionError("oops"), r"a bug in the exporter: ZeroDivisionError\('oops'\)"),
    ],
)
def test_the_message_says_what_went_wrong(loop, raised, message):
    with pytest.raises((RetryableError, PermanentError), match=f"^{message}$") as error:
        AttemptStage(loop, scripted(raised)).once()
    assert error.value.__cause__ is raised


def test_a_try_that_takes_too_long_is_a_timeout(loop):
    async def wait(_: list[str]) -> int:
        await asyncio.sleep(1000)
        return 0

    with pytest.raises(RetryableError) as error:
        AttemptStage(loop, wait).once()
    assert error.value.reason == "timeout"


def test_without_a_timeout_a_try_takes_as_long_as_it_likes(loop):
    async def wait(_: list[str]) -> int:
        await asyncio.sleep(1000)
        return 2

    assert AttemptStage(loop, wait, timeout=0).once() == 2


def test_an_exporter_that_returns_nothing_has_delivered_everything(loop):
    assert AttemptStage(loop, scripted(None)).once() == 0


def test_the_other_sides_word_reaches_the_breaker_with_a_failure_too(loop):
    stage = AttemptStage(loop, scripted(RetryableError("busy", retry_after=60)))
    for _ in range(4):
        stage.breaker.failed(Permit.TRY, 0)
    with pytest.raises(RetryableError):
        stage.once()
    assert (stage.breaker.state, stage.breaker.until) == (State.OPEN, 60)


def test_failures_of_sends_that_ran_together_halve_the_limit_once(loop):
    async def fail(_: list[str]) -> int:
        await asyncio.sleep(1)
        raise RetryableError("busy")

    stage = AttemptStage(loop, fail)

    async def scenario() -> None:
        tries = [stage.attempts.once(a_request("a"), Permit.TRY) for _ in range(3)]
        await asyncio.gather(*tries, return_exceptions=True)
        assert stage.concurrency.limit == 4
        await asyncio.gather(stage.attempts.once(a_request("a"), Permit.TRY), return_exceptions=True)
        assert stage.concurrency.limit == 2

    loop.run_until_complete(scenario())


def test_the_time_of_each_try_is_measured(loop):
    async def answer(names: list[str]) -> int:
        await asyncio.sleep(3)
        if loop.time() > 8:
            raise PermanentError("no")
        return 0

    stage = AttemptStage(loop, answer)
    stage.once()
    stage.once()
    with pytest.raises(PermanentError):
        stage.once()
    text = stage.exporter.context.registry.expose()
    (total,) = [line for line in text.splitlines() if line.startswith("otelwp_exporter_send_duration_seconds_sum")]
    assert float(total.split()[-1]) == 9


def test_a_worker_whose_try_ended_in_time_is_not_cancelled_later(loop):
    stage = AttemptStage(loop, scripted(0))

    async def scenario() -> str:
        await stage.attempts.once(a_request("a"), Permit.TRY)
        await asyncio.sleep(60)
        return "not cancelled"

    assert loop.run_until_complete(scenario()) == "not cancelled"


def test_only_sends_that_use_the_whole_limit_raise_it(loop):
    async def answer(_: list[str]) -> int:
        await asyncio.sleep(0.01)
        return 0

    stage = AttemptStage(loop, answer)
    stage.concurrency.failed(0, 0)
    assert stage.concurrency.limit == 4
    for sending, limit in ((3, 4), (4, 5)):
        stage.concurrency.sending = sending
        for _ in range(6):
            stage.once()
        assert stage.concurrency.limit == limit
