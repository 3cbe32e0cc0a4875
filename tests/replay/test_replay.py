"""Equal rules on equal traffic decide the same in a live run and in a replay."""

import asyncio
import json
from collections import Counter

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.cli import main
from otelwp_agent.cli.options import load_plan
from otelwp_agent.component import Kind
from otelwp_agent.errors import AgentError
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.replay.recordings import Recording
from otelwp_agent.replay.replay import choose, replay
from otelwp_agent.testing import run as run_in_fake_time
from tests.kit.stages import batch_of, build
from tests.kit.traffic import BEGIN, SECOND, traffic

RULES = {
    "target": {"spans_per_second": 40},
    "per": ["service.name", "http.route"],
    "drop": {"rules": [{"name": "unwanted", "attributes": {"http.route": ["/r3"]}}]},
}
CONFIG = """
receivers: {{otlp: {{protocols: {{http: }}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  adaptive_sampling: {rules}
exporters: {{debug: }}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, adaptive_sampling], exporters: [debug]}}
"""


@pytest.fixture(scope="module")
def requests():
    return list(traffic(seconds=60, rate=50))


def live(requests, delay=0.0, **settings):
    """Run the processor as an agent does, in simulated time; return by route the spans that were kept and dropped.

    It starts `delay` seconds before the first request.
    """

    async def run():
        loop = asyncio.get_running_loop()
        stage, catcher = build("adaptive_sampling", RULES | settings, clock=loop.time)
        await stage.start()
        first = requests[0][0]
        sent = []
        for at, body, spans in requests:
            wait = delay + (at - first) * 1e-9 - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            sent.append(batch_of(body, spans))
            stage.consume(sent[-1])
        await stage.shutdown()
        return sent, catcher

    sent, catcher = run_in_fake_time(run())
    kept = by_route(each.body for each in catcher.batches)
    dropped = by_route(body for _, body, _ in requests) - kept
    gone = sum(
        receipt.outcomes[Outcome.SAMPLED_OUT] + receipt.outcomes[Outcome.FILTERED]
        for each in sent
        for receipt, _ in each.shares
        if receipt.outcomes is not None
    )
    return kept, dropped, gone


def by_route(bodies):
    spans = Counter()
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans[next(each.value.string_value for each in span.attributes if each.key == "http.route")] += 1
    return spans


@pytest.fixture(scope="module")
def recorded(requests, tmp_path_factory):
    """Record the requests with the `file` exporter; return the file."""
    path = tmp_path_factory.mktemp("recorded") / "traces.jsonl"

    async def record():
        exporter, _ = build_exporter(path)
        await exporter.start()
        for _, body, spans in requests:
            await exporter.export(batch_of(body, spans))
        await exporter.shutdown()

    asyncio.run(record())
    return path


def build_exporter(path, **settings):
    return build("file", {"path": str(path), **settings}, kind=Kind.EXPORTER)


@pytest.fixture
def run(tmp_path, capsys):
    config = tmp_path / "new.yaml"

    def run(*arguments, **settings):
        config.write_text(CONFIG.format(rules=json.dumps(RULES | settings)))
        status = main._run(["sampling", "replay", "--config", str(config), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def replayed(out):
    """Return by route what was kept and dropped, in spans."""
    data = json.loads(out)
    kept = Counter({key["key"][1]: key["kept"]["spans"] for key in data["keys"]})
    dropped = Counter({key["key"][1]: key["dropped"]["spans"] for key in data["keys"]})
    return +kept, +dropped


def test_a_replay_gives_the_numbers_of_the_live_run(requests, recorded, run):
    kept, dropped, gone = live(requests)
    status, out, err = run("--file", recorded, "--json")
    assert (status, err) == (0, "")
    assert replayed(out) == (kept, dropped)
    # It is no triviality: there was something to decide about, and chance, errors, rules and waiting had their say.
    assert kept.total() > 500
    assert dropped.total() == gone > 3000
    assert {"/r1", "/r3"} <= dropped.keys()
    assert "/r1" in kept
    reasons = {(each["decision"], each["reason"]) for each in json.loads(out)["reasons"]}
    assert {("kept", "error"), ("kept", "budget"), ("dropped", "budget"), ("dropped", "unwanted")} <= reasons


def test_where_the_live_run_began_at_another_moment_the_numbers_are_nearly_the_same(requests, recorded, run):
    """Rates are then measured at other moments, so that results near a threshold can differ."""
    kept, dropped, _ = live(requests, delay=0.137)
    _, out, _ = run("--file", recorded, "--json")
    kept_again, dropped_again = replayed(out)
    assert kept_again.total() == pytest.approx(kept.total(), rel=0.03)
    assert dropped_again.total() == pytest.approx(dropped.total(), rel=0.01)


def test_other_rules_give_other_numbers(recorded, run):
    _, out, _ = run("--file", recorded, "--json", target={"spans_per_second": 80})
    _, less, _ = run("--file", recorded, "--json", target={"spans_per_second": 20})
    more, less = (json.loads(each)["total"]["kept"]["spans"] / 60 for each in (out, less))
    assert more == pytest.approx(80, rel=0.1)
    assert less == pytest.approx(20, rel=0.1)


def test_a_dry_run_is_counted_as_what_it_would_do(recorded, run):
    _, out, _ = run("--file", recorded, "--json")
    _, dry, _ = run("--file", recorded, "--json", mode="dry_run")
    assert replayed(dry) == replayed(out)


def test_a_replay_writes_no_files(recorded, run, tmp_path):
    folders = {"recorder": tmp_path / "recorder", "state": tmp_path / "state"}
    status, out, _ = run(
        "--file",
        recorded,
        flight_recorder={"enabled": True, "directory": str(folders["recorder"])},
        state_directory=str(folders["state"]),
    )
    assert status == 0
    assert not any(folder.exists() for folder in folders.values())
    assert "left out of the pipeline: memory_limiter" in out


def test_processors_before_the_sampler_are_applied(recorded, tmp_path):
    config = CONFIG.format(rules=json.dumps(RULES | {"per": ["team"]})).replace(
        "  memory_limiter:",
        "  resource: {attributes: [{key: team, value: red, action: insert}]}\n"
        "  batch: {timeout: 100ms}\n"
        "  memory_limiter:",
    )
    plan = load_plan([f"yaml:{config.replace('[memory_limiter,', '[memory_limiter, resource, batch,')}"], [])
    recording = Recording()
    done = replay(plan, *choose(plan), recording.from_files([recorded]), recording)
    assert {*done.kept, *done.dropped} == {("red",)}
    assert sum((each.spans for each in done.totals()), 0) == done.spans


def test_money(recorded, run):
    status, out, _ = run("--file", recorded, "--json", "--price-per-gib", "0.5")
    total = json.loads(out)["total"]
    assert status == 0
    assert total["cost"] == pytest.approx(total["kept"]["bytes"] / 2**30 * 0.5)
    assert total["cost_per_month"] == pytest.approx(total["cost"] / 60 * 30.4375 * 86400, rel=0.01)
    _, out, _ = run("--file", recorded, "--json", target={"cost_per_month": 2, "price_per_gib": 0.5})
    assert json.loads(out)["total"]["cost_per_month"] == pytest.approx(2, rel=0.1)


PLAN = """
receivers: {otlp: {protocols: {http: }}}
processors:
  adaptive_sampling: {target: {spans_per_second: 1}}
  adaptive_sampling/b: {target: {spans_per_second: 1}}
  batch:
exporters: {debug: }
service:
  pipelines:
    traces: {receivers: [otlp], processors: [adaptive_sampling], exporters: [debug]}
    traces/b: {receivers: [otlp], processors: [adaptive_sampling/b], exporters: [debug]}
    traces/none: {receivers: [otlp], processors: [batch], exporters: [debug]}
"""


def test_the_sampler_is_selected_by_name():
    plan = load_plan([f"yaml:{PLAN}"], [])
    both = "adaptive_sampling in traces, adaptive_sampling/b in traces/b"
    assert choose(plan, "traces")[0].id == "traces"
    assert str(choose(plan, processor="adaptive_sampling/b")[1]) == "adaptive_sampling/b"
    for wanted, words in (
        (("", ""), f"there are several adaptive samplings ({both}): choose one with --pipeline or --processor"),
        (("logs", ""), "there is no pipeline 'logs'; the pipelines are traces, traces/b, traces/none"),
        (("traces/none", ""), f"no adaptive sampling matches; the existing ones are {both}"),
        (("traces", "adaptive_sampling/b"), f"no adaptive sampling matches; the existing ones are {both}"),
    ):
        with pytest.raises(AgentError) as caught:
            choose(plan, *wanted)
        assert str(caught.value) == words


def test_invalid_requests_are_reported(tmp_path, run):
    path = tmp_path / "one.jsonl"
    span = {"traceId": "0" * 31 + "1", "spanId": "1" * 16, "endTimeUnixNano": str(BEGIN + SECOND)}
    good = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    path.write_text(f'{good}\n{{"resourceSpans": 7}}\n\n{{"resourceMetrics": []}}\n{{"resourceSpans": []}}\n')
    status, out, _ = run("--file", path)
    assert status == 0
    assert "not replayed: empty 1, other signals 1, unreadable 1" in out
    assert out.startswith("1 requests with 1 spans over 0s")
