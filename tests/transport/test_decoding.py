from __future__ import annotations

import asyncio
import threading

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker
from otelwp_agent.transport import decoding
from otelwp_agent.transport.decoding import MAX_COMMAS, OBJECTS, OFF_LOOP, Decoding, in_one_step, is_long_json
from otelwp_agent.transport.in_flight import InFlight
from tests.kit.otlp import delimited

SPANS = delimited(1, delimited(2, delimited(2, b"") * 2))
LARGE, SMALL = OFF_LOOP, OFF_LOOP - 1
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["steps", "thread"])


@pytest.fixture
def in_flight():
    return InFlight()


@pytest.fixture
def bodies(in_flight):
    return Decoding(in_flight, structlog.get_logger())


def fail(error):
    raise error


@SIZES
async def test_what_is_decoded_is_delivered_on_the_loop(bodies, in_flight, size):
    seen = []

    def deliver(decoded):
        seen.append(threading.current_thread())
        return decoded + 1

    def decode():
        seen.append(threading.current_thread())
        return 1

    assert await bodies.run(in_one_step(decode), size, deliver) == 2
    decoder, deliverer = seen
    assert deliverer is threading.current_thread()
    assert (decoder is deliverer) == (size == SMALL)
    assert in_flight.used == 0


@SIZES
async def test_the_answer_follows_what_the_body_was_delivered_to(bodies, size):
    told = asyncio.get_running_loop().create_future()
    answer = bodies.run(in_one_step(int), size, lambda _: told)
    await asyncio.sleep(0.01)  # an answer that does not wait would be there by now
    assert not answer.done()
    told.set_result("kept")
    assert await answer == "kept"
    for outcome in (Overloaded("full"), None):
        told = asyncio.get_running_loop().create_future()
        answer = bodies.run(in_one_step(int), size, lambda _, told=told: told)
        if outcome is None:
            told.cancel()
        else:
            told.set_exception(outcome)
        with pytest.raises(asyncio.CancelledError if outcome is None else Overloaded):
            await answer


@SIZES
@pytest.mark.parametrize("error", [MalformedError("bad"), KeyError("bug")], ids=["expected", "bug"])
async def test_errors_reach_the_answer_and_a_bug_the_log(bodies, in_flight, size, error):
    with capture_logs() as logs:
        with pytest.raises(type(error)):
            await bodies.run(in_one_step(fail, error), size, None)
        with pytest.raises(type(error)):
            await bodies.run(in_one_step(int), size, lambda _: fail(error))
    assert len(logs) == (2 if isinstance(error, KeyError) else 0)
    assert in_flight.used == 0
    bodies.admit()


async def test_threads_and_objects_are_bounded(bodies, in_flight):
    go, running = threading.Event(), threading.Semaphore(0)

    def decode():
        running.release()
        assert go.wait(60)

    answers = [bodies.run(in_one_step(decode), LARGE, lambda _: True) for _ in range(5)]
    for _ in range(decoding.THREADS):
        assert await asyncio.to_thread(running.acquire, timeout=60)
    assert not running.acquire(blocking=False)
    assert in_flight.used == decoding.THREADS * OBJECTS * LARGE
    go.set()
    assert await asyncio.gather(*answers) == [True] * 5
    assert in_flight.used == 0


@SIZES
async def test_bytes_that_wait_are_bounded(bodies, monkeypatch, size):
    monkeypatch.setattr(decoding, "MAX_WAITING", 2 * size)
    answers = [bodies.run(in_one_step(int), size, str) for _ in range(3)]
    with pytest.raises(Overloaded) as refused:
        bodies.run(in_one_step(int), size, str)
    assert refused.value.reason == "decoding"
    assert await asyncio.gather(*answers) == ["0"] * 3
    bodies.admit()


async def test_nothing_more_is_decoded_above_the_hard_limit(bodies, in_flight):
    in_flight.reserve(in_flight.hard + 1)
    with pytest.raises(Overloaded):
        bodies.run(in_one_step(int), SMALL, str)


@SIZES
async def test_draining_waits_for_everything_that_was_accepted(bodies, size):
    delivered = []
    for number in range(5):
        bodies.run(in_one_step(int, number), size, delivered.append)
    await bodies.drain()
    assert sorted(delivered) == list(range(5))


async def test_others_have_their_turn_between_steps(bodies):
    turns = []

    def steps():
        for number in range(3):
            turns.append(number)
            yield

    answer = bodies.run(steps(), SMALL, str)
    while not answer.done():
        turns.append("other")
        await asyncio.sleep(0)
    assert [turn for turn in turns if turn != "other"] == [0, 1, 2]
    assert turns.count("other") >= 3


async def test_a_request_is_checked_in_a_thread_with_the_memory_of_a_piece(bodies, in_flight):
    checker = StepwiseChecker(Signal.TRACES, full=True)
    seen = []

    def deliver(items):
        seen.append((items, threading.current_thread(), in_flight.used))
        return b"answer"

    answer = bodies.check(checker, SPANS, deliver)
    assert in_flight.used == checker.memory
    assert await answer == b"answer"
    assert seen == [(2, threading.current_thread(), 0)]
    with pytest.raises(MalformedError):
        await bodies.check(checker, SPANS[:-1], deliver)
    assert in_flight.used == 0


async def test_a_small_body_is_decoded_in_a_thread_if_it_takes_long(bodies):
    thread = await bodies.run(in_one_step(threading.current_thread), 1, lambda decoded: decoded, in_thread=True)
    assert thread is not threading.current_thread()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b" " * (OFF_LOOP - 1), False),
        (b" " * OFF_LOOP, True),
        (b"{}," * (MAX_COMMAS - 1), False),
        (b"{}," * MAX_COMMAS, True),
        (b"{}" * MAX_COMMAS, False),
        (b"," * MAX_COMMAS, False),
    ],
)
def test_many_values_take_long(body, expected):
    assert is_long_json(body) == expected
