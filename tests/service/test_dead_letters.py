import json

import pytest
import structlog

from otelwp_agent.dead_letters.file import read_letters
from otelwp_agent.dead_letters.sink import DeadLetterFile
from otelwp_agent.service import dead_letters as module
from otelwp_agent.service.control import Control
from otelwp_agent.service.dead_letters import DeadLetterRoutes
from tests.kit.control import ask
from tests.kit.graphs import Running, until

GRAPH = """
receivers: {hand: }
exporters: {sink: , sink/2: }
service: {pipelines: {traces: {receivers: [hand], exporters: [sink, sink/2]}}}
"""


class Served:
    """A control socket with dead letters, before a graph that runs."""

    def __init__(self, folder):
        self.running = Running()
        log = structlog.get_logger()
        self.sink = DeadLetterFile(folder / "dead-letters", 2**20, self.running.registry, log)
        self.kept = self.sink
        self.control = Control(log)
        self.routes = DeadLetterRoutes(lambda: self.kept, lambda: self.running.graph, log)
        self.routes.add_to(self.control)
        self.socket = str(folder / "control.sock")

    async def post(self, path, **data):
        return await ask(self.socket, "POST", path, json.dumps(data).encode())

    def letters(self):
        return read_letters(self.sink.path).letters


@pytest.fixture
async def served(tmp_path):
    served = Served(tmp_path)
    served.sink.open()
    await served.running.go(GRAPH)
    await served.control.listen(served.socket)
    yield served
    served.routes.stop()
    await served.control.shutdown()
    await served.running.stop()
    served.sink.close()


@pytest.fixture
async def letters(served):
    """Put two letters of `sink` and one of `sink/2`; return their ids."""
    for _ in range(3):
        served.running.hand.receive(2)
    await until(lambda: len(served.running.sink.batches) == 3)
    for batch, exporter in zip(served.running.sink.batches, ["sink", "sink", "sink/2"], strict=True):
        served.sink.put(batch, exporter=exporter, reason="malformed", error="no")
    served.running.sink.batches.clear()
    return [letter.id for letter in served.letters()]


async def test_list(served, letters):
    status, said = await ask(served.socket, "GET", "/dead-letters")
    assert (status, said["path"], said["count"], said["damaged"]) == (200, str(served.sink.path), 3, 0)
    assert [letter["id"] for letter in said["letters"]] == letters


async def test_a_long_list_is_cut_to_the_newest(served, letters, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LIST", 1)
    _, said = await ask(served.socket, "GET", "/dead-letters")
    assert (said["count"], [letter["id"] for letter in said["letters"]]) == (3, letters[2:])


async def test_resend_through_the_exporters_own_sender(served, letters):
    status, said = await served.post("/dead-letters/resend", ids=letters[1:], wait=5)
    assert (status, said["delivered"], said["pending"]) == (200, 2, 0)
    assert len(served.running.sink.batches) == 1
    assert [letter.id for letter in served.letters()] == letters[:1]


async def test_without_waiting_it_goes_on_in_the_background(served, letters):
    served.running.sink.gate.clear()
    status, said = await served.post("/dead-letters/resend", all=True, exporter="sink")
    assert status == 202
    await until(lambda: served.routes._running[0].progress.letters == 2)
    status, said = await served.post("/dead-letters/resend", all=True)
    assert (status, "2 of 2 are not done" in said["error"]) == (409, True)
    served.running.sink.gate.set()
    await until(lambda: len(served.letters()) == 1)
    await until(served.routes._running[1].done)
    assert (await served.post("/dead-letters/resend", all=True, wait=5))[0] == 200


async def test_a_stop_ends_the_waiting(served, letters):
    served.running.sink.gate.clear()
    await served.post("/dead-letters/resend", all=True, exporter="sink")
    served.routes.stop()
    await until(lambda: served.running.sink.gate)
    assert [letter.id for letter in served.letters()] == letters
    served.running.sink.gate.set()


async def test_purge(served, letters):
    status, said = await served.post("/dead-letters/purge", ids=[letters[0], "77"])
    assert (status, said) == (200, {"purged": letters[:1], "unknown": ["77"]})
    assert (await served.post("/dead-letters/purge", all=True, exporter="sink/2"))[1]["purged"] == letters[2:]
    assert [letter.id for letter in served.letters()] == letters[1:2]


@pytest.mark.parametrize("path", ["/dead-letters/resend", "/dead-letters/purge"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "give the letters"),
        ({"all": False}, "give the letters"),
        ({"all": True, "ids": []}, "give the letters"),
        ({"ids": "01"}, "a list of texts"),
        ({"ids": [1]}, "a list of texts"),
        ({"all": True, "exporter": 1}, "`exporter` must be the id of an exporter"),
    ],
)
async def test_bad_requests(served, letters, path, data, words):
    status, said = await served.post(path, **data)
    assert (status, words in said) == (400, True)
    assert len(served.letters()) == 3


@pytest.mark.parametrize("wait", [-1, "5", True, 1e9, None])
async def test_bad_waits(served, wait):
    assert (await served.post("/dead-letters/resend", all=True, wait=wait))[0] == 400


async def test_an_exporter_that_does_not_run(served, letters):
    status, said = await served.post("/dead-letters/resend", all=True, to="nobody")
    assert (status, said["error"]) == (409, "exporter 'nobody' is not running; running exporters: sink, sink/2")


async def test_a_file_that_cannot_be_read(served, letters):
    served.sink.path.unlink()
    status, said = await ask(served.socket, "GET", "/dead-letters")
    assert (status, "No such file" in said["error"]) == (500, True)
    status, said = await served.post("/dead-letters/resend", all=True, wait=5)
    assert (status, "No such file" in said["error"]) == (500, True)
    status, said = await served.post("/dead-letters/purge", all=True)
    assert (status, "cannot rewrite" in said["error"]) == (500, True)


async def test_an_agent_that_keeps_none(served):
    served.kept = None
    for method, path, body in [
        ("GET", "/dead-letters", b""),
        ("POST", "/dead-letters/resend", b'{"all": true}'),
        ("POST", "/dead-letters/purge", b'{"all": true}'),
    ]:
        status, said = await ask(served.socket, method, path, body)
        assert (status, "keeps no dead letters" in said["error"]) == (409, True)
