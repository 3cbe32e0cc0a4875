import asyncio
import time
from types import SimpleNamespace

import pytest

from otelwp_agent.cli.generate import generation
from otelwp_agent.cli.generate.generation import Generation
from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.errors import PermanentError, RetryableError
from otelwp_agent.model import projections
from otelwp_agent.model.signal import Signal


class Backend:
    """Takes requests; answers the first ones with `answers` (errors are raised), the others with success."""

    def __init__(self, *answers, delay=0.0):
        self.answers = list(answers)
        self.delay = delay
        self.sizes = []
        self.times = []

    async def send(self, signal, body):
        self.times.append(asyncio.get_running_loop().time())
        self.sizes.append(projections.count(signal, body))
        await asyncio.sleep(self.delay)
        answer = self.answers.pop(0) if self.answers else (0, "")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self):
        pass


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let the run use the simulated time of the event loop; return a clock for tests without a loop."""
    now = [0.0]

    def monotonic():
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return now[0]

    monkeypatch.setattr(generation, "time", SimpleNamespace(monotonic=monotonic, time_ns=time.time_ns))
    return now


async def run(backend, *, count=10, rate=0.0, spans=8, signal=Signal.TRACES, stop=None):
    made = Generation(Sample(spans_per_trace=spans), signal, backend, count=count, rate=rate)
    await made.run(stop or asyncio.Event())
    return made.tally


@pytest.mark.parametrize("signal", list(Signal))
async def test_everything_is_sent_in_requests_of_a_size_that_sdks_send(signal):
    backend = Backend()
    tally = await run(backend, count=1000, spans=3, signal=signal)
    total = 3000 if signal is Signal.TRACES else 1000
    assert sum(backend.sizes) == total
    assert max(backend.sizes) <= 512
    assert len(backend.sizes) <= total // 500 + 1
    assert (tally.sent, tally.accepted, tally.rejected, tally.retried) == (total, total, 0, 0)


async def test_a_trace_larger_than_a_request_goes_alone():
    backend = Backend()
    await run(backend, count=2, spans=600)
    assert backend.sizes == [600, 600]


async def test_a_rate_is_kept():
    backend = Backend()
    await run(backend, count=20, rate=100, spans=1)
    assert asyncio.get_running_loop().time() == pytest.approx(0.15)
    assert sum(backend.sizes) == 20
    assert backend.times == pytest.approx([0, 0.05, 0.1, 0.15])  # one request a tick


async def test_a_low_rate_sends_trace_by_trace():
    backend = Backend()
    await run(backend, count=4, rate=50, spans=1)
    assert max(backend.sizes) <= 2


async def test_what_may_succeed_later_is_sent_again_when_the_other_side_says():
    backend = Backend(RetryableError("busy", retry_after=0.15), RetryableError("busy"))
    tally = await run(backend, count=1)
    assert (tally.accepted, tally.rejected, tally.retried, tally.problem) == (8, 0, 2, "")
    assert backend.times == pytest.approx([0, 0.15, 0.15 + generation.WAITS[0] * 2])


async def test_it_gives_up_after_some_tries_and_says_why():
    backend = Backend(*[RetryableError("busy") for _ in range(100)])
    tally = await run(backend, count=1)
    assert len(backend.times) == generation.TRIES
    assert (tally.accepted, tally.rejected, tally.retried) == (0, 8, generation.TRIES - 1)
    assert "busy" in tally.problem
    assert str(generation.TRIES) in tally.problem


async def test_a_refusal_for_good_ends_the_run_at_once():
    backend = Backend(*[PermanentError("no such key")] * 1000)
    tally = await run(backend, count=100_000)
    assert len(backend.times) <= generation.IN_FLIGHT
    assert tally.problem == "no such key"
    assert tally.accepted == 0
    assert tally.rejected == tally.sent


async def test_partial_success_is_told():
    tally = await run(Backend((3, "three are too old")), count=1)
    assert (tally.accepted, tally.rejected, tally.problem) == (5, 3, "three are too old")


async def test_a_problem_with_one_request_is_remembered_though_later_ones_pass():
    tally = await run(Backend((3, "three are too old")), count=1000)
    assert tally.rejected == 3
    assert tally.problem == "three are too old"


async def test_stopping_ends_a_wait_at_once_and_counts_what_has_no_answer():
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    tally = await run(Backend(delay=60), count=1, stop=stop)
    assert asyncio.get_running_loop().time() == pytest.approx(0.05)
    assert (tally.sent, tally.accepted, tally.rejected) == (8, 0, 0)
    assert "8 without an answer" in tally.line("spans")


def test_the_summary_is_one_line_for_a_person(clock):
    tally = generation.RequestTally(sent=12_000, accepted=11_000, rejected=1_000, retried=1)
    tally.started, clock[0] = 10.0, 12.0
    line = tally.line("spans")
    assert line.startswith(
        "sent 12,000 spans: 11,000 accepted, 1,000 rejected, 1 request retried; 2.0 s, 5,500 spans/s"
    )
    assert "without an answer" not in line
