import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.errors import StartError
from otelwp_agent.service.control import answer
from otelwp_agent.service.control_plane import ControlPlane
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.control import ask
from tests.kit.graphs import Running

GRAPH = """
receivers: {hand: }
exporters: {sink: }
service: {pipelines: {logs: {receivers: [hand], exporters: [sink]}}}
"""


@pytest.fixture
async def plane():
    running = Running()
    await running.go(GRAPH)
    plane = ControlPlane(Registry(), structlog.get_logger(), lambda: running.graph)
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
    assert [line["event"] for line in logs] == [
        "service.dead_letter has changed: that takes effect when the agent starts again"
    ]
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
