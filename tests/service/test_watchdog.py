from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Factory, Kind
from otelwp_agent.service.service import Service
from otelwp_agent.service.watchdog import BEAT, LOOP_BLOCKED, LOOP_STALL, Watchdog, stage_of
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.side_loop import SIDE_LOOP
from tests.kit.graphs import FACTORIES, HandConfig, Pass, plan, until

AGENT = """
receivers: {hand: }
processors: {pass: }
exporters: {sink: }
extensions: {health_check: {endpoint: '127.0.0.1:0'}}
service:
  extensions: [health_check]
  pipelines: {traces: {receivers: [hand], processors: [pass], exporters: [sink]}}
  telemetry: {metrics: {address: none}, logs: {encoding: json}}
  watchdog: {threshold: 500ms}
"""

CLIENT = """
import http.client, json, sys, time
port, seconds, paths = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
print("ready", flush=True)
answers = []
end = time.monotonic() + seconds
while time.monotonic() < end:
    for path in paths:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        answers.append([path, began, time.monotonic(), answer.status, body])
        if len(answers) == 8:
            print("warm", flush=True)
        time.sleep(0.01)
for answer in answers:
    print(json.dumps(answer))
"""
"""Asks from a process of its own, so that the test does not slow down what it measures.

It prints its answers at the end: nothing reads its output while the loop is blocked, and a pipe holds only 64 kB."""


def spin(until_when):
    """Keep the interpreter busy with Python code, as a slow handler does."""
    while time.monotonic() < until_when:
        sum(range(100))


class Slow(Pass):
    """A processor that blocks the loop for `seconds`."""

    seconds = 2.2

    def consume(self, batch):
        spin(time.monotonic() + self.seconds)
        super().consume(batch)


def context(registry=None):
    return Context(
        id=ComponentId("pass", "slow"),
        kind=Kind.PROCESSOR,
        registry=registry or Registry(),
        log=structlog.get_logger(),
        clock=time.monotonic,
        host=None,
    )


@pytest.fixture
async def watchdog():
    registry = Registry()
    dog = Watchdog(registry, structlog.get_logger(), threshold=0.2)
    dog.registry = registry
    yield dog
    dog.stop()
    assert SIDE_LOOP._thread is None


def delays(registry):
    return registry.histogram(LOOP_STALL)


@pytest.fixture
async def service(monkeypatch):
    monkeypatch.setattr("otelwp_agent.service.memory.release", lambda: None)
    monkeypatch.setattr("otelwp_agent.service.memory.tune", lambda: None)
    monkeypatch.setitem(FACTORIES, (Kind.PROCESSOR, "pass"), Factory(Kind.PROCESSOR, "pass", HandConfig, Slow))
    service = Service(lambda: plan(AGENT))
    await service.start()
    yield service
    await service.stop()
    logging.configure()


async def client_of(port, seconds, *paths):
    """Return a client that has begun to ask."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(port), str(seconds), *paths, stdout=asyncio.subprocess.PIPE
    )
    assert await client.stdout.readline() == b"ready\n"
    return client


async def test_health_answers_and_names_the_stage_while_a_handler_blocks_the_main_loop(service, capsys):
    (health,) = service.graph.extensions.values()
    (hand,) = service.graph.receivers.values()
    client = await client_of(health.port, 5.0, "/live", "/ready", "/health", "/health/detailed")
    assert await client.stdout.readline() == b"warm\n"
    blocked = time.monotonic()
    hand.receive()  # blocks the loop
    released = time.monotonic()
    answers = [json.loads(line) for line in (await client.stdout.read()).splitlines()]
    await client.wait()
    assert released - blocked >= 2.0

    during = [answer for answer in answers if blocked < answer[1] and answer[2] < released]
    took = {
        path: [end - began for at, began, end, *_ in during if at == path] for path in {path for path, *_ in during}
    }
    assert len(took["/live"]) > 3
    assert sorted(took["/live"])[-2] < 0.25, took  # but one: other processes take the CPU, too
    assert {(path, status) for path, _, _, status, _ in answers} == {
        (path, 200) for path in ("/live", "/ready", "/health", "/health/detailed")
    }
    late = [body for path, began, _, _, body in during if path.startswith("/health") and began - blocked > 1.2]
    assert late
    for body in late:
        assert body["status"] == "degraded"
        (reason,) = body["reasons"]
        assert reason.startswith("the event loop has been blocked for ")
        assert "s, in processor pass: " in reason
        assert "test_watchdog.Slow.consume (line " in reason
    assert [body["status"] for path, began, _, _, body in answers if path == "/health"][-1] == "healthy"

    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (warning,) = [event for event in events if event["event"] == LOOP_BLOCKED]
    assert warning["level"] == "warning"
    assert 0.5 <= warning["seconds"] < 2
    assert warning["stage"].startswith("processor pass: ")
    assert "test_watchdog.Slow.consume (line " in warning["stage"]
    assert warning["stage"].endswith("test_watchdog.spin")
    assert "test_watchdog.spin" in warning["text"]
    delay = delays(service.registry)
    assert delay.sum >= 2.2 - BEAT
    assert sum(delay.counts[delay.bounds.index(2.5) :]) >= 1
    assert "otelwp_loop_stall_seconds_bucket" in service.registry.expose()


async def test_an_idle_loop_has_no_stall_and_wakes_rarely(watchdog):
    watchdog.start()
    watchdog.start()
    looks = []
    look = watchdog._look
    watchdog._look = lambda: (looks.append(time.monotonic()), look())
    with capture_logs() as logs:
        began = time.monotonic()
        await until(lambda: delays(watchdog.registry).count >= 3)
        seconds = time.monotonic() - began
    assert watchdog.stall() is None
    assert logs == []
    wakes = delays(watchdog.registry).count + len(looks)
    assert wakes <= 4 * seconds + 1


async def test_a_stall_is_logged_once_and_the_next_ones_are_counted(watchdog):
    watchdog.start()
    with capture_logs() as logs:
        for _ in range(2):
            spin(time.monotonic() + BEAT + 0.5)
            beats = delays(watchdog.registry).count
            await until(lambda beats=beats: delays(watchdog.registry).count > beats)
    assert [(event["event"], event["stalls"]) for event in logs] == [(LOOP_BLOCKED, 1)]
    assert watchdog._limit._held == 1


async def test_a_call_that_holds_the_interpreter_lock_is_named_as_soon_as_it_ends(watchdog):
    watchdog.start()
    with capture_logs() as logs:
        began = time.monotonic()
        sum(range(60_000_000))  # one call in C
        while time.monotonic() - began < BEAT + 0.4:
            sum(range(10_000_000))
        await until(lambda: delays(watchdog.registry).count)
    (event,) = logs
    assert "test_a_call_that_holds_the_interpreter_lock" in event["stage"]
    assert delays(watchdog.registry).sum >= 0.3


async def test_a_process_that_was_stopped_is_given_a_moment(watchdog):
    """After SIGSTOP the timer is overdue, and the main thread executes nothing."""
    watchdog.start()
    due = time.monotonic() - 60

    async def suspect():
        await asyncio.sleep(0.05)  # the main loop waits again
        return watchdog._suspect(due)

    with capture_logs() as logs:
        assert await SIDE_LOOP.run(suspect()) < BEAT
        assert logs == []
        assert await SIDE_LOOP.run(suspect()) == BEAT
    assert [(event["event"], event["stage"], event["text"]) for event in logs] == [(LOOP_BLOCKED, "", "")]


async def test_stop_before_start_and_twice_ends_the_thread(watchdog):
    watchdog.stop()
    watchdog.start()
    assert "otelwp-side" in [thread.name for thread in threading.enumerate()]
    watchdog.stop()
    watchdog.stop()
    assert "otelwp-side" not in [thread.name for thread in threading.enumerate()]
    assert watchdog.stall() is None


def test_a_stage_is_the_component_our_function_and_what_it_calls():
    class Busy(Pass):
        def consume(self, batch):
            json.dumps({"a": frame()}, default=str)

    def frame():
        stack, at = [], sys._getframe()
        while at is not None:
            stack.append(at)
            at = at.f_back
        names.append(stage_of(stack))

    names = []
    Busy(HandConfig(), context()).consume(None)
    frame()
    assert names[0].startswith("processor pass/slow: ")
    assert ".Busy.consume (line " in names[0]
    assert names[0].endswith(".frame")
    assert stage_of([]) == ""
