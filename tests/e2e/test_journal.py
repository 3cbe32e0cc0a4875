"""What was acknowledged survives the agent: killed, stopped with a backend away, or told to wait for the outcome."""

import re
import signal
import time

import grpc
import pytest

from tests.e2e.test_dead_letters import POISON, Backend, audit, command, send, span, until
from tests.kit.agent import PATIENCE, Agent, free_port

CONFIG = """
receivers:
  otlp:
    acknowledge: {acknowledge}
    protocols: {{http: {{endpoint: '127.0.0.1:0'}}, grpc: {{endpoint: '127.0.0.1:0'}}}}
processors:
  batch: {{timeout: {timeout}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', retry_on_failure: {{initial_interval: 50ms}}}}
service:
  shutdown_timeout: 1s
  {journal}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
"""
JOURNAL = "journal: {{directory: '{folder}/state'}}"


def config(tmp_path, port, *, timeout="1h", acknowledge="accepted", journal=JOURNAL):
    kept = journal.format(folder=tmp_path)
    return CONFIG.format(sink=port, timeout=timeout, acknowledge=acknowledge, journal=kept)


def test_what_was_acknowledged_comes_back_after_a_kill(tmp_path):
    backend = Backend()
    names = [f"page {number}" for number in range(50)]
    try:
        with Agent(config(tmp_path, backend.port), tmp_path) as agent:
            send(agent.port(), names)  # it waits in the batch for an hour
            agent.signal(signal.SIGKILL)
        status, out, _ = command("audit", "--journal", tmp_path / "state")
        assert status == 0, out
        assert "every ledger balances" in out
        with Agent(config(tmp_path, backend.port, timeout="10ms"), tmp_path) as agent:
            until(lambda: len(backend.spans) == 50)
            until(lambda: audit(agent)[1]["pipeline"]["in_flight"] == 0)
            status, lines, problems = audit(agent)
            assert (status, problems) == (0, [])
            assert (lines["pipeline"]["accepted"], lines["pipeline"]["delivered"]) == (50, 50)
        assert backend.spans == names, "in the order in which they came"
    finally:
        backend.close()


def test_an_orderly_stop_keeps_what_it_cannot_deliver_and_says_so(tmp_path):
    port = free_port()
    with Agent(config(tmp_path, port), tmp_path) as agent:
        send(agent.port(), ["page 1", "page 2"])
        agent.signal(signal.SIGTERM)
        line = agent.wait_for("agent stopped")
        assert (line["kept_in_journal"], line["dropped"], line["level"]) == (2, 0, "info")
    status, out, _ = command("audit", "--journal", tmp_path / "state")
    assert (status, "2 requests not settled" in out) == (0, True)
    assert re.search(r"otlp_http +2 = +0 \+ +0 \+ +0 \+ +0 \+ +2", out)


def test_a_second_agent_on_the_same_directory_is_refused(tmp_path):
    settings = config(tmp_path, free_port())
    with Agent(settings, tmp_path), Agent(settings, tmp_path, name="second", wait=False) as second:
        assert second.wait() == 1
        assert "another agent is using" in second.output


@pytest.mark.parametrize("journal", [JOURNAL, ""], ids=["journal", "no journal"])
def test_who_asked_to_wait_for_the_outcome_is_told(tmp_path, journal):
    backend = Backend()
    settings = config(tmp_path, backend.port, timeout="10ms", acknowledge="delivered", journal=journal)
    try:
        with Agent(settings, tmp_path) as agent:
            send(agent.port(), ["page 1"])
            assert backend.spans == ["page 1"]
            with pytest.raises(AssertionError):
                send(agent.port(), [POISON])
            with grpc.insecure_channel(f"127.0.0.1:{agent.port('grpc')}") as channel:
                export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
                assert export(span("page 2"), timeout=PATIENCE) == b""
                with pytest.raises(grpc.RpcError) as refusal:
                    export(span(POISON), timeout=PATIENCE)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            kept = "kept by the agent as dead letters" if journal else "dropped"
            assert f"1 of 1 items were {kept} (malformed)" in refusal.value.details()
        assert backend.spans == ["page 1", "page 2"]
    finally:
        backend.close()


def test_a_backend_that_comes_back_gets_everything_without_a_limit_of_time(tmp_path):
    port = free_port()
    with Agent(config(tmp_path, port, timeout="10ms"), tmp_path) as agent:
        send(agent.port(), ["page 1"])
        agent.wait_for("sending fails")
        time.sleep(0.2)  # some more tries that fail
        backend = Backend(port)
        try:
            until(lambda: backend.spans == ["page 1"])
        finally:
            backend.close()
