import asyncio
from types import SimpleNamespace

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import NoHost
from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.dead_letters.file import LetterFile, read_letters
from otelwp_agent.errors import StartError
from otelwp_agent.service.control import answer
from otelwp_agent.service.control_plane import ControlPlane
from otelwp_agent.service.service import Service
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.control import ask
from tests.kit.graphs import Running, plan

GRAPH = """
receivers: {hand: }
exporters: {sink: }
service: {pipelines: {logs: {receivers: [hand], exporters: [sink]}}}
"""


@pytest.fixture
async def plane():
    running = Running()
    await running.go(GRAPH)
    plane = ControlPlane(Registry(), structlog.get_logger(), lambda: running.graph, NoHost())
    yield plane
    await plane.shutdown()
    await running.stop()


def service(**data):
    return ServiceConfig.model_validate(data)


async def test_without_a_journal_there_is_nothing(plane):
    plane.open(service())
    await plane.listen(service())
    assert plane.dead_letters is None
    assert plane.control.path is None


async def test_a_journal_brings_both(plane, tmp_path):
    config = service(journal={"directory": str(tmp_path)})
    plane.open(config)
    await plane.listen(config)
    assert plane.dead_letters.path == tmp_path / "dead-letters"
    assert (await ask(plane.control.path, "GET", "/audit"))[1]["balances"] is True
    assert (await ask(plane.control.path, "GET", "/dead-letters"))[1]["count"] == 0
    await plane.shutdown()
    assert [path.name for path in tmp_path.iterdir()] == ["dead-letters"]


async def test_a_socket_alone(plane, tmp_path):
    config = service(control_socket=str(tmp_path / "socket"))
    plane.open(config)
    await plane.listen(config)
    assert (await ask(plane.control.path, "GET", "/audit"))[0] == 200
    assert (await ask(plane.control.path, "GET", "/dead-letters"))[0] == 409


async def test_a_reload_moves_the_socket_and_leaves_the_letters(plane, tmp_path):
    first = service(journal={"directory": str(tmp_path)})
    second = service(journal={"directory": str(tmp_path / "b")}, control_socket=str(tmp_path / "other"))
    plane.open(first)
    await plane.listen(first)
    with capture_logs() as logs:
        await plane.listen(first)
        assert logs == []
        await plane.listen(second)
    assert [line["event"] for line in logs] == ["service.dead_letter has changed: restart the agent to apply it"]
    assert plane.control.path == str(tmp_path / "other")
    assert not (tmp_path / "control.sock").exists()
    assert plane.dead_letters.path == tmp_path / "dead-letters"


async def test_others_add_what_they_offer(plane, tmp_path):
    plane.control.add("/explain", lambda _: answer("because"), ("GET",))
    await plane.listen(service(control_socket=str(tmp_path / "socket")))
    assert await ask(plane.control.path, "GET", "/explain") == (200, "because")


async def test_what_cannot_be_opened_stops_the_start(plane):
    with pytest.raises(StartError, match=r"service\.dead_letter\.path"):
        plane.open(service(dead_letter={"path": "/dev/null/letters"}))
    with pytest.raises(StartError, match=r"service\.control_socket"):
        await plane.listen(service(control_socket="/dev/null/control"))


SERVICE = """
receivers: {hand: {label: LABEL}}
exporters: {sink: }
service:
  pipelines: {traces: {receivers: [hand], exporters: [sink]}}
  telemetry: {metrics: {address: none}}
  dead_letter: {path: FOLDER/letters}
  control_socket: FOLDER/SOCKET
"""


@pytest.fixture
async def agent(tmp_path, monkeypatch):
    monkeypatch.setattr("otelwp_agent.service.memory.release", lambda: None)
    monkeypatch.setattr("otelwp_agent.service.memory.tune", lambda: None)
    agent = SimpleNamespace(label="a", socket="first")
    yaml = SERVICE.replace("FOLDER", str(tmp_path))
    agent.service = Service(lambda: plan(yaml.replace("LABEL", agent.label).replace("SOCKET", agent.socket)))
    yield agent
    logging.configure()


async def test_a_reload_of_the_service_takes_the_socket_along(agent, tmp_path):
    await agent.service.start()
    agent.socket = "second"
    assert await agent.service.reload()
    assert (await ask(str(tmp_path / "second"), "GET", "/audit"))[0] == 200
    assert not (tmp_path / "first").exists()
    agent.socket, agent.label = "third", "a, fails: true"
    assert not await agent.service.reload()
    assert (await ask(str(tmp_path / "second"), "GET", "/audit"))[0] == 200
    assert not (tmp_path / "third").exists()
    await agent.service.stop()
    assert not (tmp_path / "second").exists()


async def test_a_start_that_fails_leaves_no_socket_and_no_lock(agent, tmp_path):
    agent.label = "a, fails: true"
    with pytest.raises(StartError, match="told to fail"):
        await agent.service.start()
    assert not (tmp_path / "first").exists()
    LetterFile(tmp_path / "letters", 2**20).open()


async def test_what_a_stop_drops_is_no_dead_letter_and_the_socket_answers_meanwhile(agent, tmp_path):
    await agent.service.start()
    graph = agent.service.graph
    (hand,), (sink,) = graph.receivers.values(), graph.exporters.values()
    sink.gate.clear()
    receipt = hand.receive(3)
    stopping = asyncio.create_task(agent.service.stop())
    _, said = await ask(str(tmp_path / "first"), "GET", "/audit")
    assert said["balances"]
    assert said["lines"][0]["in_flight"] == 3
    sink.gate.set()
    await stopping
    assert receipt.pending == 0
    assert read_letters(tmp_path / "letters").letters == []
