import json
import re

import pytest

from otelwp_agent.cli import main
from otelwp_agent.service.control import answer
from tests.kit.control import answering
from tests.kit.traffic import request

INTERVAL = [10.0, 8.0, 12.0]
SAMPLER = {
    "pipeline": "traces",
    "processor": "adaptive_sampling",
    "per": ["service.name"],
    "records": False,
    "mode": "enforce",
    "budget": {"rate": 500, "unit": "spans"},
    "key_budget": None,
    "spent_last_minute": 29_000,
    "factor": 1.0,
    "guarded": 0,
    "over_ceiling": {"error": 0},
    "keys_known": 1,
    "max_keys": 100,
    "keys": [
        {
            "key": ["shop"],
            "rate": INTERVAL,
            "kept": 100,
            "kept_share": 0.1,
            "probability": 0.09,
            "error_ratio": [0.01, 0.005, 0.02],
            "percentiles": {"50": [0.1, 0.09, 0.11], "95": [1.5, 1.2, None], "99": None},
            "slow_above": None,
            "why": "reduced: its share of the budget is 20 of 200 spans/s",
        }
    ],
}
CONFIG = """
receivers: {otlp: {protocols: {http: }}}
processors:
  adaptive_sampling: {target: {traces_per_second: 100, }, per: [http.route]}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], processors: [adaptive_sampling], exporters: [debug]}}}
"""


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main._run(["sampling", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def serve(tmp_path):
    path = tmp_path / "control.sock"

    def serve(*samplers):
        asked = serve.asked = []

        def handler(request):
            asked.append(request.query)
            return answer({"samplers": samplers})

        return answering(path, lambda control: control.add("/sampling", handler, ("GET",)))

    serve.path = path
    return serve


def test_explain(run, serve):
    with serve(SAMPLER):
        status, out, err = run("explain", "--socket", serve.path)
    assert (status, err) == (0, "")
    assert serve.asked == ["top=20"]
    assert [line.split("  ") for line in out.splitlines()[:3]] == [
        ["adaptive_sampling in traces"],
        ["", "target 500 spans/s; in the last minute 483 spans/s were kept"],
        [""],
    ]
    assert [re.split(r" {2,}", line) for line in out.splitlines()[3:]] == [
        ["service.name", "traces/s", "kept", "chance", "errors", "p50", "p95", "p99", "why"],
        [
            *("shop", "10 (8 to 12)", "10 %", "0.09", "1 % (0.5 % to 2 %)"),
            *("100 ms (90 ms to 110 ms)", "1.5 s (1.2 s to …)", "-"),
            "reduced: its share of the budget is 20 of 200 spans/s",
        ],
    ]


def test_explain_as_json(run, serve):
    with serve(SAMPLER):
        status, out, _ = run("explain", "--socket", serve.path, "--json", "--top", 3)
    assert status == 0
    assert json.loads(out) == {"samplers": [SAMPLER]}
    assert serve.asked == ["top=3"]


def test_two_samplers_and_one_of_them(run, serve):
    other = {**SAMPLER, "pipeline": "traces/b", "keys": []}
    with serve(SAMPLER, other):
        _, out, _ = run("explain", "--socket", serve.path)
        assert "\n\nadaptive_sampling in traces/b\n" in out
        assert out.endswith("no traces received yet\n")
        _, out, _ = run("explain", "--socket", serve.path, "--pipeline", "traces/b")
        assert "shop" not in out
        status, _, err = run("explain", "--socket", serve.path, "--processor", "x")
    assert status == 1
    names = "adaptive_sampling in traces, adaptive_sampling in traces/b"
    assert err == f"error: no adaptive sampling matches --pipeline and --processor: there is {names}\n"


def test_an_agent_without_one(run, serve):
    with serve():
        status, _, err = run("explain", "--socket", serve.path)
    assert (status, err) == (1, "error: the agent has no `adaptive_sampling` in its pipelines\n")


def test_no_agent(run, tmp_path):
    status, _, err = run("explain", "--socket", tmp_path / "none")
    assert status == 1
    assert err.startswith(f"error: no agent answers at {tmp_path}/none: ")
    assert err.endswith("Only a running agent can explain its sampling: start it first\n")
    status, _, err = run("explain")
    assert status == 2
    assert "give the agent's --config FILE or --socket PATH" in err
    config = "yaml:" + CONFIG.replace("service: {", "service: {control_socket: none, ")
    status, _, err = run("explain", "--config", config)
    assert (status, err) == (
        1,
        "error: this configuration has no control socket: set `service.control_socket`\n",
    )


@pytest.fixture
def recorded(tmp_path):
    """Two traces of a second each, in OTLP/JSON, a second apart."""
    lines = []
    for number in (1, 2):
        span = {
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "name": "GET",
            "startTimeUnixNano": str(number * 10**9),
            "endTimeUnixNano": str((number + 1) * 10**9),
            "attributes": [{"key": "http.route", "value": {"stringValue": f"/{number}"}}],
        }
        lines.append(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_replay(run, recorded):
    status, out, err = run("replay", "--config", f"yaml:{CONFIG}", "--file", recorded, "--price-per-gib", "0.5")
    size = len(request([{"name": "GET"}]))
    assert (status, err, size > 0) == (0, "", True)
    lines = out.splitlines()
    assert lines[0] == "2 requests with 2 spans over 1s, through adaptive_sampling in traces"
    assert lines[2].split() == ["http.route", *("traces", "kept"), *("spans", "kept"), *("bytes", "kept"), "cost/month"]
    assert [line.split()[:7] for line in lines[3:6]] == [
        ["/1", "1", "1", "100", "%", "1", "1"],
        ["/2", "1", "1", "100", "%", "1", "1"],
        ["total", "2", "2", "100", "%", "2", "2"],
    ]
    assert "traces kept because of: first_seen 2" in lines
    assert "kept per second: 2 spans, 2 traces" in lines
    assert any(line.startswith("kept per month, at this rate: ") for line in lines)


def test_the_rest_is_summed_up(run, recorded):
    _, out, _ = run("replay", "--config", f"yaml:{CONFIG}", "--file", recorded, "--top", 1)
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["/1", "(1", "total"]


def test_replay_as_json(run, recorded):
    status, out, _ = run("replay", "--config", f"yaml:{CONFIG}", "--file", recorded, "--json")
    data = json.loads(out)
    assert status == 0
    assert data["per"] == ["http.route"]
    assert (data["requests"], data["spans"], data["seconds"]) == (2, 2, 1.0)
    assert [(key["key"], key["kept"]["traces"], key["dropped"]["traces"]) for key in data["keys"]] == [
        (["/1"], 1, 0),
        (["/2"], 1, 0),
    ]


def test_what_to_replay_is_said_once(run, recorded, tmp_path):
    for arguments in ([], ["--file", recorded, "--journal", tmp_path]):
        status, _, err = run("replay", "--config", f"yaml:{CONFIG}", *arguments)
        assert status == 2
        assert "give what to replay: either --file FILE or --journal DIRECTORY" in err


def test_nothing_to_replay(run, tmp_path):
    path = tmp_path / "logs.jsonl"
    path.write_text('{"resourceLogs": []}\n')
    status, _, err = run("replay", "--config", f"yaml:{CONFIG}", "--file", path)
    assert (status, err) == (1, f"error: there are no traces in {path}: other signals 1\n")


def test_a_configuration_that_does_not_sample(run, recorded):
    config = CONFIG.replace("processors: [adaptive_sampling], ", "")
    status, _, err = run("replay", "--config", f"yaml:{config}", "--file", recorded)
    assert status == 1
    assert err == "error: no pipeline of this configuration has an `adaptive_sampling` processor\n"


def test_a_configuration_that_is_wrong(run, recorded):
    status, _, err = run("replay", "--config", f"yaml:{CONFIG.replace('100', '-1')}", "--file", recorded)
    assert status == 1
    assert "traces_per_second" in err
