"""Whole traces are decided about by a whole agent; killed while they wait, it decides the same after the next start."""

import random
import signal

from otelwp_agent.sampling.consistent import randomness_of
from tests.e2e.test_dead_letters import Backend, audit, until
from tests.kit.agent import Agent, post
from tests.kit.sampled_traces import CHANCE, QUARTER, body_of, span

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  adaptive_sampling:
    sites: {{rules: [{{keep: 0.25}}]}}
    always_keep: {keep}
    max_wait: {wait}
    decision_wait: {wait}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', retry_on_failure: {{initial_interval: 50ms}}}}
service:
  shutdown_timeout: 2s
  journal: {{directory: '{folder}/state'}}
  pipelines:
    traces: {{receivers: [otlp], processors: [adaptive_sampling], exporters: [otlp_http]}}
"""
KEEP = {**CHANCE["always_keep"], "errors": {"traces_per_second": 1000}}


def config(folder, backend, wait):
    keep = "{" + ", ".join(f"{name}: {value}".replace("'", "") for name, value in KEEP.items()) + "}"
    return CONFIG.format(folder=folder, sink=backend.port, wait=wait, keep=keep.replace("False", "false"))


def test_a_kill_in_the_middle_forgets_no_trace(tmp_path):
    """Halves of traces wait when the agent is killed: every one is decided about, as it would have been."""
    chance = random.Random(5)
    traces = [chance.randbytes(16) for _ in range(40)]
    errors = set(traces[::4])
    kept = errors | {trace for trace in traces if (randomness_of(trace) or 0) >= QUARTER}
    assert len(errors) < len(kept) < 30
    backend = Backend()
    try:
        with Agent(config(tmp_path, backend, "1h"), tmp_path) as agent:
            for index in (1, 2, 3):
                order = chance.sample(traces, len(traces))
                for start in range(0, 40, 10):
                    spans = [
                        span(trace, index, 0, error=trace in errors and index == 2, name=trace.hex())
                        for trace in order[start : start + 10]
                    ]
                    assert post(agent.port(), "/v1/traces", body_of(spans)) == 200
            agent.signal(signal.SIGKILL)
        assert backend.spans == []
        with Agent(config(tmp_path, backend, "200ms"), tmp_path) as agent:
            until(lambda: audit(agent)[1]["pipeline"]["in_flight"] == 0)
            _, lines, problems = audit(agent)
            assert problems == []
            account = lines["pipeline"]
            assert account["accepted"] == 120
            assert account["delivered"] == len(backend.spans) == 3 * len(kept)
            assert account["sampled_out"] == 120 - 3 * len(kept)
        assert {bytes.fromhex(name) for name in backend.spans} == kept
    finally:
        backend.close()
