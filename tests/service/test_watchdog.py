from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Factory, Kind
from otelwp_agent.service.service import Service
from otelwp_agent.service.watchdog import BEAT, LOOP_BLOCKED, LOOP_STALL, Watchdog, _callback_stack, stage_of
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
port, paths = int(sys.argv[1]), sys.argv[2:]
while True:
    for path in paths:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        print(json.dumps([path, began, time.monotonic(), answer.status, body]), flush=True)
        time.sleep(0.01)
"""
"""Asks until it is killed, from a process of its own, so that the test does not slow down what it measures."""


class Asking(threading.Thread):
    """The client, and its `answers` so far: [path, began, ended, status, body]."""

    def __init__(self, port, *paths):
        super().__init__()
        self.answers = []
        self.process = subprocess.Popen([sys.executable, "-c", CLIENT, str(port), *paths], stdout=subprocess.PIPE)
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.answers.append(json.loads(line))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.join()
        self.process.stdout.close()


def spin(until_when, things=(), count=0):
    """Keep the interpreter busy with Python code, as a slow handler does, until a time and until there are things."""
    while time.monotonic() < until_when or len(things) < count:
        sum(range(100))


class Slow(Pass):
    """A processor that blocks the loop for 2.2 s or longer: until the client has got 24 answers, half of them late."""

    asking = None

    def consume(self, batch):
        now, answers = time.monotonic(), self.asking.answers
        spin(now + 1.5, answers, len(answers) + 12)
        spin(now + 2.2, answers, len(answers) + 12)
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


async def test_health_answers_and_names_the_stage_while_a_handler_blocks_the_main_loop(service, capsys, monkeypatch):
    (health,) = service.graph.extensions.values()
    (hand,) = service.graph.receivers.values()
    asking = Asking(health.port, "/live", "/ready", "/health", "/health/detailed")
    try:
        monkeypatch.setattr(Slow, "asking", asking)
        await until(lambda: len(asking.answers) >= 8)
        blocked = time.monotonic()
        hand.receive()  # blocks the loop
        released = time.monotonic()
        await until(
            lambda: [body["status"] for *_, body in asking.answers[-4:] if "status" in body][-1:] == ["healthy"]
        )
    finally:
        asking.close()
    answers = asking.answers
    assert released - blocked >= 2.0

    during = [answer for answer in answers if blocked < answer[1] and answer[2] < released]
    took = {
        path: [end - began for at, began, end, *_ in during if at == path] for path in {path for path, *_ in during}
    }
    assert len(took["/live"]) > 3
    assert sorted(took["/live"])[len(took["/live"]) // 2] < 2, took  # most do not wait for the main loop
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

    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (warning,) = [event for event in events if event["event"] == LOOP_BLOCKED]
    assert warning["level"] == "warning"
    assert 0.5 <= warning["seconds"] < released - blocked
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
        while _callback_stack(watchdog._thread):
            await asyncio.sleep(0.01)  # until the main loop waits again
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
