import asyncio
import io
import json
from types import SimpleNamespace

import pytest
import structlog

from otelwp_agent.cli import main
from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.codecs import otlp_json
from otelwp_agent.dead_letters.file import LetterFile, read_letters
from otelwp_agent.dead_letters.records import Letter
from otelwp_agent.dead_letters.sink import DeadLetterFile
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.dead_letters import DeadLetterRoutes
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.control import answering

NASTY = "no:\n\x1b[31m" + "x" * 200
CONFIG = """
receivers: {{otlp: {{protocols: {{http: }}}}}}
exporters: {{debug: }}
service:
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
  {more}
"""


@pytest.fixture(scope="module")
def body():
    return Sample("shop", seed=1).make(Signal.TRACES, 1, 1_700_000_000)


@pytest.fixture
def path(tmp_path, body):
    path = tmp_path / "dead-letters"
    file = LetterFile(path, 2**20)
    file.open()
    for number, (exporter, reason, error) in enumerate(
        [
            ("otlp_http", "malformed", "the other side said 400: bad span"),
            ("zipkin", "too_large", NASTY),
            ("otlp_http", "permanent", "403"),
        ]
    ):
        size = len(body)
        letter = Letter(f"{number:02}", 1.7e9 + number, exporter, Signal.TRACES, 8, size, reason, error, "otlp")
        file.append(letter, body)
    file.close()
    return path


@pytest.fixture
def run(capsysbinary, monkeypatch):
    def run(*arguments, answer=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        status = main._run(["dead-letter", *map(str, arguments)])
        out, err = capsysbinary.readouterr()
        return status, out, err.decode()

    return run


def left(path):
    return [letter.id for letter in read_letters(path).letters]


def test_the_list_is_a_table_that_a_terminal_can_bear(run, path):
    status, out, err = run("list", "--path", path)
    lines = out.decode().splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["id", "when", "exporter", "signal", "items", "reason", "error"]
    assert lines[1].startswith("00  2023-11-1")
    assert lines[1].endswith("otlp_http  traces  8      malformed  the other side said 400: bad span")
    assert "\x1b" not in lines[2]
    assert lines[2].endswith("…")
    assert len(lines) == 4


def test_the_list_as_json(run, path):
    _, out, _ = run("list", "--path", path, "--json", "--exporter", "zipkin")
    (one,) = json.loads(out)
    assert (one["id"], one["exporter"], one["error"], one["signal"]) == ("01", "zipkin", NASTY, "traces")
    assert one["time"].startswith("2023-11-1")


def test_an_empty_list(run, path, tmp_path):
    assert run("list", "--path", path, "--exporter", "nobody") == (0, b"", "no dead letters\n")
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG.format(more=f"journal: {{directory: {tmp_path}/journal}}"))
    assert run("list", "--config", config) == (0, b"", "no dead letters\n")
    assert json.loads(run("list", "--config", config, "--json")[1]) == []


def test_the_configuration_tells_where_the_letters_are(run, path, tmp_path):
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG.format(more=f"dead_letter: {{path: {path}}}"))
    assert run("list", "--config", config)[1].count(b"\n") == 4
    set_ = f"service.journal.directory={path.parent}"
    assert run("list", "--config", config, "--set", "service.dead_letter.path=", "--set", set_)[1].count(b"\n") == 4


def test_show(run, path, body):
    status, out, _ = run("show", "01", "--path", path)
    shown = json.loads(out)
    assert (status, shown["reason"], shown["receiver"]) == (0, "too_large", "otlp")
    assert shown["request"] == json.loads(otlp_json.encode(Signal.TRACES, body))


def test_show_raw(run, path, body):
    assert run("show", "01", "--path", path, "--raw") == (0, body, "")


@pytest.mark.parametrize(
    ("letter", "body", "words"),
    [
        ({}, b"\xff\xff", "2 bytes that are not valid OTLP"),
        ({"encodings": ("zstd", "aes")}, b"abc", "3 bytes, encoded with zstd, aes: see --raw"),
    ],
)
def test_show_what_cannot_be_read(run, tmp_path, letter, body, words):
    path = tmp_path / "letters"
    file = LetterFile(path, 2**20)
    file.open()
    file.append(Letter("1", 1.0, "sink", Signal.LOGS, 1, len(body), "malformed", "no", **letter), body)
    file.close()
    status, out, _ = run("show", "1", "--path", path)
    assert status == 0
    assert words in json.loads(out)["request"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "give the agent's --config"),
        (["show", "--path", "x"], "Missing argument 'ID'"),
        (["purge", "--path", "x"], "give the letters"),
        (["purge", "01", "--all", "--path", "x"], "give either ids"),
        (["resend", "--socket", "x"], "give the letters"),
        (["resend", "--all"], "give the agent's --config"),
        (["resend", "--all", "--socket", "x", "--wait", "-1"], "not in the range"),
    ],
)
def test_wrong_usage(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out) == (2, b"")
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--path", "/nowhere/letters"], "file /nowhere/letters does not exist"),
        (["list", "--path", __file__], "this is not a dead-letter file"),
        (["list", "--path", "/"], "cannot read /: Is a directory"),
        (["list", "--socket", "/nowhere.sock"], "no agent answers at /nowhere.sock: no such file or directory"),
        (["resend", "--all", "--socket", "/nowhere.sock"], "Only a running agent can resend: start it first"),
        (["show", "99", "--path", "PATH"], "there is no letter 99: see `dead-letter list`"),
        (["purge", "00", "99", "--path", "PATH", "--yes"], "there is no letter 99"),
        (["list", "--config", "yaml:" + CONFIG.format(more="")], "keeps no dead letters: set `service.journal`"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(run, path, arguments, words):
    status, out, err = run(*[path if one == "PATH" else one for one in arguments])
    assert (status, out) == (1, b"")
    assert err.startswith("error: ")
    assert words in err
    assert left(path) == ["00", "01", "02"]


def test_damage_is_told_and_the_rest_is_listed(run, path):
    data = bytearray(path.read_bytes())
    data[data.index(b"too_large")] ^= 1
    path.write_bytes(data[:-1])
    status, out, err = run("list", "--path", path)
    assert (status, out.count(b"\n")) == (0, 2)
    assert err.startswith("warning: 1 place of the file (")


def test_purge_asks_first(run, path):
    status, _, err = run("purge", "00", "--path", path, answer="n\n")
    assert (status, left(path)) == (130, ["00", "01", "02"])
    assert "Purge 1 letter with 8 items? This cannot be undone." in err
    status, out, _ = run("purge", "00", "--path", path, answer="y\n")
    assert (status, out, left(path)) == (0, b"purged 1 letter\n", ["01", "02"])


def test_purge_of_one_exporter_and_of_all(run, path):
    assert run("purge", "--exporter", "otlp_http", "--path", path, "--yes")[1] == b"purged 2 letters\n"
    assert left(path) == ["01"]
    assert run("purge", "--all", "--path", path, "--yes")[1] == b"purged 1 letter\n"
    assert run("purge", "--all", "--path", path, "--yes") == (0, b"", "no dead letters to purge\n")


def test_a_file_that_an_agent_has_is_purged_by_it_alone(run, path):
    file = LetterFile(path, 2**20)
    file.open()
    status, _, err = run("purge", "--all", "--path", path, "--yes")
    file.close()
    assert (status, len(left(path))) == (1, 3)
    assert "Give its --socket, so that the agent can purge them" in err


class Peer:
    def __init__(self, outcome, reason=""):
        self.settlement = (outcome, reason)
        self.taken = []

    def resent(self, items, reason):
        """Accept what a sender is told about resent letters."""

    def consume(self, batch):
        self.taken.append(batch)
        if self.settlement[0] is not None:
            asyncio.get_running_loop().call_soon(batch.settle, *self.settlement)


@pytest.fixture
def agent(path, tmp_path):
    """Serve the letters as an agent does whose exporters take, drop, and never answer."""
    exporters = {
        "otlp_http": Peer(Outcome.DELIVERED),
        "zipkin": Peer(Outcome.DROPPED, "shutdown"),
        "slow": Peer(None),
    }
    graph = SimpleNamespace(
        exporters=exporters, senders={(name, Signal.TRACES): peer for name, peer in exporters.items()}
    )

    def prepare(control):
        log = structlog.get_logger()
        sink = DeadLetterFile(path, 2**20, Registry(), log)
        sink.open()
        routes = DeadLetterRoutes(lambda: sink, lambda: graph, log)
        routes.add_to(control)
        return lambda: (routes.stop(), sink.close())

    with answering(tmp_path / "control.sock", prepare):
        yield SimpleNamespace(socket=tmp_path / "control.sock", exporters=exporters, senders=graph.senders)


def test_the_agent_tells_where_the_letters_are(run, agent):
    assert run("list", "--socket", agent.socket)[1].count(b"\n") == 4
    assert run("show", "01", "--socket", agent.socket)[0] == 0


def test_what_is_delivered_is_gone(run, agent, path):
    status, out, err = run("resend", "00", "02", "--socket", agent.socket)
    assert (status, out) == (0, b"2 letters delivered\n")
    assert len(agent.exporters["otlp_http"].taken) == 2
    assert left(path) == ["01"]
    status, out, err = run("resend", "00", "--socket", agent.socket)
    assert (status, "there is no letter 00" in err) == (1, True)


def test_what_is_not_delivered_stays(run, agent, path):
    status, out, _ = run("resend", "--all", "--socket", agent.socket)
    assert status == 1
    assert out == b"2 letters delivered, 1 not delivered (the agent's log has the reason)\n"
    assert "01" in left(path)


def test_to_another_exporter(run, agent):
    assert run("resend", "01", "--to", "otlp_http", "--socket", agent.socket)[:2] == (0, b"1 letter delivered\n")
    status, _, err = run("resend", "00", "--to", "nobody", "--socket", agent.socket)
    assert (status, err) == (1, "error: exporter 'nobody' is not running; running exporters: otlp_http, zipkin, slow\n")


def test_what_takes_long_goes_on_without_us(run, agent):
    status, out, _ = run("resend", "01", "--to", "slow", "--wait", "0.05", "--socket", agent.socket)
    assert (status, out) == (1, b"0 letters delivered, 1 not done within 50ms: the agent continues with them\n")
    status, _, err = run("resend", "00", "--socket", agent.socket)
    assert (status, "letters are already being resent, and 1 of 1 are not done" in err) == (1, True)


def test_an_exporter_that_is_gone(run, agent, path):
    del agent.senders["zipkin", Signal.TRACES]
    status, out, err = run("resend", "--all", "--socket", agent.socket)
    assert (status, out) == (1, b"2 letters delivered\n")
    assert "1 letter of zipkin, which is in no running pipeline of their signal: give another exporter with --to" in err
    assert "01" in left(path)


def test_purging_through_the_agent(run, agent, path):
    assert run("purge", "01", "--yes", "--socket", agent.socket)[1] == b"purged 1 letter\n"
    assert left(path) == ["00", "02"]
    config = f"yaml:{CONFIG.format(more=f'dead_letter: {{path: {path}}}')}"
    set_ = f"service.control_socket={agent.socket}"
    assert run("purge", "--all", "--yes", "--config", config, "--set", set_)[1] == b"purged 2 letters\n"
    assert left(path) == []


def test_an_agent_that_keeps_no_letters(run, tmp_path):
    def prepare(control):
        DeadLetterRoutes(lambda: None, lambda: None, structlog.get_logger()).add_to(control)

    with answering(tmp_path / "control.sock", prepare):
        for arguments in (["list"], ["resend", "--all"]):
            status, _, err = run(*arguments, "--socket", tmp_path / "control.sock")
            assert (status, "this agent keeps no dead letters" in err) == (1, True)
