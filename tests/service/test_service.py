import asyncio
import json
import urllib.request

import pytest

from otelwp_agent.errors import ConfigError, Problem, StartError
from otelwp_agent.service.service import SAME_SIGNAL, Service
from otelwp_agent.telemetry import logging
from tests.kit.agent import free_port
from tests.kit.graphs import plan, until

QUIET = """
receivers: {hand: {label: LABEL}}
exporters: {sink: }
service:
  pipelines: {traces: {receivers: [hand], exporters: [sink]}}
  telemetry: {metrics: {address: ADDRESS}}
"""


class Running:
    def __init__(self, address="none", label="a"):
        self.yaml = QUIET.replace("ADDRESS", f"'{address}'").replace("LABEL", label)
        self.problem = None
        self.service = Service(self.load)

    def load(self):
        if self.problem is not None:
            raise self.problem
        return plan(self.yaml)

    @property
    def hand(self):
        return next(iter(self.service.graph.receivers.values()))

    @property
    def sink(self):
        return next(iter(self.service.graph.exporters.values()))


@pytest.fixture(autouse=True)
def _no_freeze(monkeypatch):
    monkeypatch.setattr("otelwp_agent.service.memory.release", lambda: None)
    monkeypatch.setattr("otelwp_agent.service.memory.tune", lambda: None)
    yield
    logging.configure()


def fetch(port, path="/metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


async def test_its_life_as_a_host_tells_it():
    running = Running()
    service = running.service
    assert (service.status, service.ready, [each.id for each in service.components()]) == (
        "starting",
        False,
        ["license"],
    )
    await service.start()
    assert (service.status, service.ready) == ("ready", True)
    assert [state.id for state in service.components()] == ["sink", "license"]
    running.sink.gate.clear()
    running.hand.receive()
    stopping = asyncio.create_task(service.stop())
    async with asyncio.timeout(60):
        while service.status != "draining":
            await asyncio.sleep(0)
    assert not service.ready
    running.sink.gate.set()
    await stopping
    assert service.status == "stopped"
    assert len(running.sink.batches) == 1


async def test_metrics_show_the_ledger():
    port = free_port()
    running = Running(f"127.0.0.1:{port}")
    await running.service.start()
    receipt = running.hand.receive(3)
    await until(lambda: receipt.pending == 0)
    text = await asyncio.to_thread(fetch, port)
    assert 'otelwp_pipeline_settled_items{outcome="delivered",pipeline="traces"} 3\n' in text.replace(
        'pipeline="traces",outcome="delivered"', 'outcome="delivered",pipeline="traces"'
    )
    assert 'otelcol_receiver_accepted_spans{receiver="hand",transport="hand"} 3\n' in text
    await running.service.stop()


async def test_a_bad_configuration_leaves_the_old_one_running(capsys):
    running = Running()
    await running.service.start()
    hand = running.hand
    running.problem = ConfigError([Problem("no such thing", "receivers.x", "a.yaml", 3, 5)])
    assert await running.service.reload() is False
    assert running.hand is hand
    assert "a.yaml:3:5: receivers.x: no such thing" in capsys.readouterr().err
    running.problem = None
    assert await running.service.reload() is True
    assert running.hand is hand
    await running.service.stop()


async def test_a_component_that_cannot_start_leaves_the_old_graph_running(capsys):
    running = Running()
    await running.service.start()
    hand = running.hand
    running.yaml = running.yaml.replace("label: a", "fails: true")
    assert await running.service.reload() is False
    assert running.hand is hand
    assert hand.life == ["start"]
    assert "receivers/hand: told to fail" in capsys.readouterr().err
    await running.service.stop()


async def test_a_reload_moves_the_metrics():
    first, second = free_port(), free_port()
    running = Running(f"127.0.0.1:{first}")
    await running.service.start()
    running.yaml = running.yaml.replace(str(first), str(second))
    assert await running.service.reload()
    assert "otelwp_pipeline_accepted_items" in await asyncio.to_thread(fetch, second)
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(fetch, first)
    await running.service.stop()


async def test_a_start_that_fails_closes_the_metrics_again():
    port = free_port()
    running = Running(f"127.0.0.1:{port}", label="a, fails: true")
    with pytest.raises(StartError):
        await running.service.start()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(fetch, port)


async def test_a_second_signal_stops_at_once_but_the_first_one_repeated_does_not(capsys):
    clock = [1000.0]
    running = Running()
    running.service._clock = lambda: clock[0]
    await running.service.start()
    running.sink.gate.clear()
    running.hand.receive(2)
    stopping = asyncio.create_task(running.service.stop())
    async with asyncio.timeout(60):
        while running.service.status != "draining":
            await asyncio.sleep(0)
    for ahead in (0.0, 0.0, 0.9 * SAME_SIGNAL):
        clock[0] = 1000.0 + ahead
        running.service._request_stop()
    done, _ = await asyncio.wait({stopping}, timeout=0.3)
    assert not done, "`timeout` and `make` forward a signal that the agent has received itself"
    clock[0] = 1000.0 + 1.1 * SAME_SIGNAL
    running.service._request_stop()
    async with asyncio.timeout(60):
        await stopping
    assert "stopped immediately" in capsys.readouterr().err


async def test_logs_go_where_the_configuration_says(tmp_path):
    log = tmp_path / "agent.log"
    running = Running()
    running.yaml = QUIET.replace("LABEL", "a").replace(
        "{metrics: {address: ADDRESS}}",
        f"{{metrics: {{address: none}}, logs: {{encoding: json, output_paths: ['{log}'], "
        "initial_fields: {site: a}}}",
    )
    await running.service.start()
    await running.service.stop()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["tier decided", "agent ready", "draining", "agent stopped"]
    assert {event["site"] for event in events} == {"a"}
    logging.configure()
    running = Running()
    running.yaml = QUIET.replace("LABEL", "a").replace(
        "{metrics: {address: ADDRESS}}", "{metrics: {address: none}, logs: {output_paths: [/nowhere/at/all.log]}}"
    )
    with pytest.raises(StartError, match=r"output_paths: cannot write to /nowhere/at/all\.log: No such file"):
        await running.service.start()
