"""Adaptive sampling as its operators meet it: explained, asked for rates, replayed from its journal, rescued from."""

import json

from tests.e2e.test_dead_letters import Backend, until
from tests.kit.agent import Agent, free_port, get, post
from tests.kit.commands import run_command
from tests.kit.traffic import traffic

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  adaptive_sampling:
    target: {{traces_per_second: 100000}}
    per: [service.name, http.route]
    decision_wait: 100ms
    drop: {{rules: [{{name: unwanted, attributes: {{http.route: [/r0]}}}}]}}
    sites: {{attribute: http.route, rules: [{{keep: 0.25, sites: [/r1, /r2]}}]}}
    always_keep: {{first_seen: {{enabled: false}}, slow: {{above: 1h}}}}
    flight_recorder: {{enabled: true}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}'}}
extensions:
  remote_sampling: {{endpoint: '127.0.0.1:{rates}'}}
service:
  control_socket: {folder}/control.sock
  extensions: [remote_sampling]
  journal: {{directory: '{folder}/journal'}}
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, adaptive_sampling], exporters: [otlp_http]}}
"""
SPANS = "otelwp_processor_adaptive_sampling_spans"


def command(agent, *arguments):
    """Run a command of the agent's user; return its exit status and output."""
    done = run_command(*arguments, "--config", agent.file)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_what_ran_live_is_explained_replayed_and_rescued(tmp_path):
    backend, rates = Backend(), free_port()
    requests = list(traffic(seconds=10, rate=40))
    config = CONFIG.format(sink=backend.port, rates=rates, folder=tmp_path)
    try:
        with Agent(config, tmp_path, metrics=True) as agent:
            for _, body, _ in requests:
                assert post(agent.port(), "/v1/traces", body) == 200
            everything = sum(spans for _, _, spans in requests)
            until(lambda: agent.metric(SPANS) == everything)
            kept = agent.metric(SPANS, decision="kept")
            assert 0 < kept < everything

            _, out = command(agent, "sampling", "explain", "--json")
            (sampler,) = json.loads(out)["samplers"]
            assert {"/r1", "/r2", "/r3"} <= {key["key"][1] for key in sampler["keys"]}

            status, text = get(rates, "/sampling?service=shop")
            assert (status, json.loads(text)["probabilisticSampling"]) == (200, {"samplingRate": 1.0})

            # The journal still holds all of it: it is one segment, and a segment goes as a whole.
            _, out = command(agent, "sampling", "replay", "--journal", str(tmp_path / "journal"), "--json")
            replayed = json.loads(out)
            assert (replayed["spans"], replayed["skipped"]) == (everything, {})
            of = {key["key"][1]: key for key in replayed["keys"]}
            for decision in ("kept", "dropped"):
                assert sum(key[decision]["spans"] for key in of.values()) == agent.metric(SPANS, decision=decision)
            for each in replayed["reasons"]:
                assert each["spans"] == agent.metric(SPANS, decision=each["decision"], reason=each["reason"])

            until(lambda: len(backend.spans) == kept)
            status, out = command(agent, "rescue", "--since", "1h", "--where", "http.route=/r1")
            gone = of["/r1"]["dropped"]["spans"]
            assert (status, out) == (0, f"adaptive_sampling in traces: {gone:,} spans recovered\n")
            until(lambda: len(backend.spans) == kept + gone)
            status, out = command(agent, "rescue", "--since", "1h", "--where", "http.route=/r1")
            assert status == 1
            status, out = command(agent, "audit")
            assert "every ledger balances" in out
            assert status == 0
            lines = json.loads(command(agent, "audit", "--json")[1])["lines"]
            accepted = {line["name"]: line["accepted"] for line in lines if line["kind"] == "receiver"}
            assert accepted == {"otlp": everything, "rescue": gone}
            status, out = command(
                agent, "audit", "--journal", str(tmp_path / "journal"), "--set", "service.control_socket=none"
            )
            assert status == 0, out
    finally:
        backend.close()
