import time
from datetime import UTC, datetime

import pytest

from otelwp_agent.cli import main
from otelwp_agent.service.control import answer, json_body
from tests.kit.control import answering

ONE = {"pipeline": "traces", "processor": "adaptive_sampling"}
TWO = {"pipeline": "traces/b", "processor": "adaptive_sampling/b"}


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main._run(["rescue", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def serve(tmp_path):
    path = tmp_path / "control.sock"

    def serve(*rescued, samplers=(ONE, TWO)):
        serve.asked = []

        def handler(request):
            serve.asked.append(json_body(request))
            return answer({"samplers": samplers, "rescued": rescued})

        return answering(path, lambda control: control.add("/sampling/rescue", handler))

    serve.path = path
    return serve


def test_a_trace(run, serve):
    with serve({**ONE, "spans": 1234}):
        status, out, err = run("--socket", serve.path, "--trace-id", "0AF7651916CD43DD8448EB211C80319C")
    assert (status, err) == (0, "")
    assert out == "adaptive_sampling in traces: 1,234 spans recovered\n"
    assert serve.asked == [{"trace_id": "0AF7651916CD43DD8448EB211C80319C"}]


def test_what_has_attributes_since_a_time(run, serve):
    with serve({**ONE, "spans": 0}, {**TWO, "spans": 7}):
        before = time.time()
        arguments = ["--since", "15m", "--where", "http.route=/cart*", "--where", "service.name=a=b"]
        status, out, _ = run("--socket", serve.path, *arguments, "--pipeline", "traces")
    (wanted,) = serve.asked
    assert wanted.pop("since") == pytest.approx(before - 900, abs=5)
    assert wanted == {"where": {"http.route": "/cart*", "service.name": "a=b"}, "pipeline": "traces"}
    assert status == 0
    assert out.splitlines() == [
        "adaptive_sampling in traces: 0 spans recovered",
        "adaptive_sampling/b in traces/b: 7 spans recovered",
    ]


@pytest.mark.parametrize(
    "text", ["2026-11-20T14:30:00Z", "2026-11-20T14:30:00", "2026-11-20T15:30:00+01:00", "2026-11-20 14:30"]
)
def test_a_moment(run, serve, text):
    with serve({**ONE, "spans": 1}):
        run("--socket", serve.path, "--since", text)
    assert serve.asked == [{"since": datetime(2026, 11, 20, 14, 30, tzinfo=UTC).timestamp()}]


def test_nothing_fits(run, serve):
    with serve({**ONE, "spans": 0}):
        status, out, err = run("--socket", serve.path, "--since", "1h")
    assert (status, out) == (1, "")
    assert err == "no recorded trace matches: it is too old, was kept, or was never received\n"


def test_nobody_records(run, serve):
    with serve():
        status, _, err = run("--socket", serve.path, "--since", "1h")
    assert status == 1
    assert "set `flight_recorder: {enabled: true}` in adaptive_sampling" in err


def test_no_such_processor(run, serve):
    with serve():
        status, _, err = run("--socket", serve.path, "--since", "1h", "--processor", "x")
    assert status == 1
    assert "there is adaptive_sampling in traces, adaptive_sampling/b in traces/b" in err
    with serve(samplers=()):
        status, _, err = run("--socket", serve.path, "--since", "1h")
    assert (status, err) == (1, "error: the agent has no `adaptive_sampling` in its pipelines\n")


def test_no_agent(run, tmp_path):
    status, _, err = run("--socket", tmp_path / "none", "--since", "1h")
    assert status == 1
    assert "Only a running agent can rescue traces: start it first" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give what to recover: --trace-id, --since or --where"),
        (["--trace-id", "12"], "'12' is not a trace id: give 32 hexadecimal digits"),
        (["--trace-id", "g" * 32], "is not a trace id"),
        (["--since", "yesterday"], "'yesterday' is not a time: write `15m` (ago) or `2026-11-20T14:30:00Z`"),
        (["--where", "http.route"], "'http.route' is not ATTRIBUTE=VALUE, like http.route=/cart"),
        (["--where", "=x"], "'=x' is not ATTRIBUTE=VALUE"),
        (["--where", "http.rote=/"], "'http.rote' is unknown: the attribute is 'http.route'"),
        (["--where", "status=error"], "'status' is unknown"),
        (["--where", "span.name=GET"], "span.name is not an attribute"),
        (["--since", "1h"], "give the agent's --config FILE or --socket PATH"),
    ],
)
def test_wrong_usage(run, arguments, words):
    status, _, err = run(*arguments)
    assert status == 2
    assert words in err
