import asyncio
import json
import socket
import stat
from pathlib import Path

import pytest
import structlog

from otelwp_agent.errors import AgentError, MalformedError, StartError
from otelwp_agent.service.control import Control, answer, json_body, refusal
from tests.kit.control import ask


@pytest.fixture
async def control(tmp_path):
    control = Control(structlog.get_logger())
    control.add("/echo", lambda request: answer(json_body(request)))
    await control.listen(str(tmp_path / "run" / "control.sock"))
    yield control
    await control.shutdown()


async def test_what_was_added_is_served(control):
    assert await ask(control.path, "POST", "/echo", b'{"a": [1]}') == (200, {"a": [1]})
    assert await ask(control.path, "POST", "/echo") == (200, {})


async def test_what_is_added_later_is_served_too(control):
    control.add("/later", lambda _: refusal("not now", 409), ("GET",))
    assert await ask(control.path, "GET", "/later") == (409, {"error": "not now"})


async def test_what_cannot_be_now_is_said(control):
    def handler(_):
        raise AgentError("the agent is not running")

    control.add("/now", handler)
    assert await ask(control.path, "POST", "/now") == (503, {"error": "the agent is not running"})


async def test_an_answer_may_take_its_time(control):
    future = asyncio.get_running_loop().create_future()
    control.add("/wait", lambda _: future)
    asking = asyncio.create_task(ask(control.path, "POST", "/wait"))
    await asyncio.sleep(0.01)  # an answer that does not wait would be there by now
    assert not asking.done()
    future.set_result(answer("done"))
    assert await asking == (200, "done")


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b"\xff"])
async def test_what_is_no_json_object_is_refused(control, body):
    status, said = await ask(control.path, "POST", "/echo", body)
    assert status == 400
    assert "the body is not " in said
    assert "JSON" in said


async def test_other_paths_and_methods(control):
    assert (await ask(control.path, "GET", "/echo"))[0] == 405
    status, said = await ask(control.path, "GET", "/nothing")
    assert (status, "/echo" in said) == (404, True)


async def test_only_its_owner_may_connect(control):
    assert stat.S_IMODE(Path(control.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(control.path).parent.stat().st_mode) == 0o700


async def test_the_socket_goes_with_the_agent(control):
    path = control.path
    await control.shutdown()
    assert not Path(path).exists()
    assert control.path is None
    await control.shutdown()


async def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    control = Control(structlog.get_logger())
    control.add("/", lambda _: answer(1))
    await control.listen(path)
    assert await ask(path, "POST", "/") == (200, 1)
    await control.shutdown()


async def test_a_second_agent_is_told(control, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:  # another process' socket, as far as we can tell
        path = str(tmp_path / "other.sock")
        other.bind(path)
        other.listen()
        second = Control(structlog.get_logger())
        with pytest.raises(StartError, match=r"a process listens on this path|in use") as error:
            await second.listen(path)
    assert "Change service.control_socket" in str(error.value)
    assert second.path is None
    assert Path(path).exists()


@pytest.mark.parametrize(
    ("name", "words"), [("file/control.sock", "control.sock"), ("file", "this path is a file that is not a socket")]
)
async def test_where_no_socket_can_be(tmp_path, name, words):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StartError, match=words):
        await Control(structlog.get_logger()).listen(str(tmp_path / name))
    assert (tmp_path / "file").read_text() == "precious"


async def test_moving_to_another_path(control, tmp_path):
    old, new = control.path, str(tmp_path / "new.sock")
    await control.listen(new)
    assert await ask(new, "POST", "/echo") == (200, {})
    assert not Path(old).exists()
    with pytest.raises(StartError):
        await control.listen("/dev/null/control.sock")
    assert control.path == new
    assert await ask(new, "POST", "/echo") == (200, {})


def test_a_refusal_is_json():
    assert json.loads(refusal("no", 400).body) == {"error": "no"}
    with pytest.raises(MalformedError):
        json_body(type("Request", (), {"body": b"x"}))
