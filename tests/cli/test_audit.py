import json

import pytest

from otelwp_agent.cli import main
from otelwp_agent.journal import records
from otelwp_agent.journal.records import Commit, JournalSnapshot, RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.ledger_report import LedgerLine, Report
from otelwp_agent.model.signal import Signal
from otelwp_agent.service.control import answer
from tests.kit.control import answering

CONFIG = """
receivers: {otlp: {protocols: {http: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""
GOOD = Report(
    [
        LedgerLine("pipeline", "traces", 1234, 1000, 200, 4, 10, 20, {"dead_letter:malformed": 7, "too_large": 3}),
        LedgerLine("receiver", "otlp", 1234, 1000, 200, 4, 10, 20, {"dead_letter:malformed": 7, "too_large": 3}),
        LedgerLine("tenant", "", 1234, 1000, 200, 4, 10, 20, {"dead_letter:malformed": 7, "too_large": 3}),
        LedgerLine("exporter", "otlp_http", 1030, 1000, 0, 0, 10, 20, {"malformed": 10}),
    ],
    source="running agent, process 7",
)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main._run(["audit", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def serve(tmp_path):
    path = tmp_path / "control.sock"

    def serve(data):
        return answering(path, lambda control: control.add("/audit", lambda _: answer(data), ("GET",)))

    serve.path = path
    return serve


def test_what_balances_is_printed_as_equations(run, serve):
    with serve(GOOD.to_json()):
        status, out, err = run("--socket", serve.path)
    assert (status, err) == (0, "")
    reasons = "(lost: too_large 3; kept as dead letters: malformed 7)"
    assert out.splitlines() == [
        "running agent, process 7",
        "",
        "pipeline   accepted = delivered + sampled_out + filtered + dropped + in_flight",
        f"traces         1234 =      1000 +         200 +        4 +      10 +        20  {reasons}",
        "",
        "receiver   accepted = delivered + sampled_out + filtered + dropped + in_flight",
        f"otlp           1234 =      1000 +         200 +        4 +      10 +        20  {reasons}",
        "",
        "tenant     accepted = delivered + sampled_out + filtered + dropped + in_flight",
        f"(none)         1234 =      1000 +         200 +        4 +      10 +        20  {reasons}",
        "",
        "exporter   accepted = delivered + sampled_out + filtered + dropped + in_flight",
        "otlp_http      1030 =      1000 +           0 +        0 +      10 +        20  (lost: malformed 10)",
        "",
        "every ledger balances",
    ]


def test_json(run, serve):
    with serve(GOOD.to_json()):
        status, out, _ = run("--socket", serve.path, "--json")
    assert status == 0
    assert Report.from_json(json.loads(out)) == GOOD


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_what_does_not_balance_exits_1_and_says_which_line_and_by_how_much(run, serve, as_json):
    bad = Report([*GOOD.lines[1:], LedgerLine("pipeline", "logs", accepted=10, delivered=7)])
    with serve(bad.to_json()):
        status, out, err = run("--socket", serve.path, *as_json)
    assert status == 1
    words = "pipeline logs: 3 items are missing: accepted, but neither settled nor in flight"
    if as_json:
        assert json.loads(out)["problems"] == [words]
    else:
        assert err == f"{words}\n1 problem: the ledgers do not balance\n"
        assert "WRONG BY 3" in out


def test_an_agent_that_has_no_ledger(run, serve):
    with serve(Report().to_json()):
        assert run("--socket", serve.path) == (0, "there are no ledgers yet: nothing was accepted\n", "")


def test_the_configuration_tells_the_socket(run, serve):
    with serve(GOOD.to_json()):
        assert run("--config", f"yaml:{CONFIG}", "--set", f"service.control_socket={serve.path}")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "give what to audit"),
        (
            ["--socket", "/nowhere.sock"],
            1,
            "no agent answers at /nowhere.sock: no such file or directory. Start the agent",
        ),
        (["--config", f"yaml:{CONFIG}"], 1, "neither control socket nor journal: set `service.control_socket`"),
        (["--journal", "/nowhere"], 1, "there is no journal in /nowhere"),
        (["--config", f"yaml:{CONFIG}", "--set", "service.journal.directory=/nowhere"], 1, "there is no journal in"),
        (["--socket", "/dev/null"], 1, "no agent answers at /dev/null: connection refused"),
        (["--socket", "/" + "x" * 200], 1, "path too long"),
    ],
)
def test_what_cannot_be_asked(run, arguments, status, words):
    found, _, err = run(*arguments)
    assert (found, words in err) == (status, True), err


@pytest.mark.parametrize("data", [{}, {"lines": [{}], "problems": []}, []])
def test_an_agent_of_another_version(run, serve, data):
    with serve(data):
        status, _, err = run("--socket", serve.path)
    assert (status, "has another version" in err) == (1, True)


def test_a_journal_that_somebody_tampered_with_exits_1(run, tmp_path):
    """The agent's own checks are `tests/journal/test_audit.py`; this is what who runs the command sees."""
    segment = Segment.create(tmp_path, 1, 1)
    snapshot = JournalSnapshot(1, [("traces", "otlp", "shop", 10, [9, 0, 0, 0], {})], 0.0)
    entry = records.entry(segment.marker, 1, Signal.TRACES, 0, 1, b"")
    context = RequestContext(Origin("otlp", "http", "shop"), ("traces",))
    begin = records.other(segment.marker, records.RecordKind.SNAPSHOT, snapshot.encode())
    begin += records.other(segment.marker, records.RecordKind.CONTEXT, context.encode())
    commit = Commit(range(1, 2), [("traces", "otlp", "shop", 11, [10, 0, 0, 0], {})])
    end = records.other(segment.marker, records.RecordKind.COMMIT, commit.encode())
    segment.path.write_bytes(b"".join([*begin, *entry, *end]))
    status, out, err = run("--journal", tmp_path)
    assert (status, err) == (0, ""), out

    segment.path.write_bytes(b"".join([*begin, *end]))  # the entry is taken out, and every checksum is right
    segment.close()
    status, out, err = run("--journal", tmp_path)
    assert (status, "WRONG BY 1" in out) == (1, True)
    for line in ("pipeline traces", "receiver otlp", "tenant shop"):
        assert f"{line}: 1 items are missing: accepted, but neither settled nor in flight\n" in err
    assert err.endswith("4 problems: the ledgers do not balance\n")
