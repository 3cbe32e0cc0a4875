import socket
import threading

import pytest

from otelwp_agent.cli.asking import NoAnswerError, ask
from otelwp_agent.errors import AgentError, MalformedError, RetryableError
from otelwp_agent.service.control import answer, json_body, refusal
from otelwp_agent.transport.http_messages import Response
from tests.kit.control import answering


@pytest.fixture
def served(tmp_path):
    def refuse(_):
        raise MalformedError("not like this")

    def prepare(control):
        control.add("/echo", lambda request: answer(json_body(request)), ("GET", "POST"))
        control.add("/no", lambda _: refusal("not now", 409))
        control.add("/malformed", refuse)
        control.add("/text", lambda _: Response(200, b"hello"))
        control.add("/odd", lambda _: Response(500, b"[1]"))

    path = tmp_path / "control.sock"
    with answering(path, prepare):
        yield str(path)


def test_what_is_asked_and_answered(served):
    assert ask(served, "POST", "/echo", {"a": ["é", 1]}) == {"a": ["é", 1]}
    assert ask(served, "GET", "/echo") == {}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/no", "not now"),
        ("/malformed", "refused the request: not like this"),
        ("/nothing", "refused the request: nothing is served at this path; valid paths: /echo"),
        ("/text", "its answer is not JSON"),
        ("/odd", r"refused the request: \[1\]"),
    ],
)
def test_what_is_refused_is_told_in_the_agents_words(served, target, words):
    with pytest.raises(AgentError, match=words):
        ask(served, "POST", target)


def test_a_relative_path(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask("control.sock", "POST", "/echo") == {}


def test_nobody_answers(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    for name, why in (("dead", "connection refused"), ("none", "no such file or directory")):
        with pytest.raises(NoAnswerError, match=why):
            ask(str(tmp_path / name), "GET", "/")


def test_an_agent_that_hangs(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen()
        with pytest.raises(RetryableError, match="did not answer within 50ms"):
            ask(path, "GET", "/", patience=0.05)


def test_something_else_answers(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def talk():
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(AgentError):
            ask(path, "GET", "/")
        thread.join()
