"""Rules in deploy/prometheus, and the metrics of an agent, checked with Prometheus's `promtool`."""

import subprocess
from pathlib import Path

import pytest
from peers import debian

from tests.interop.process import PATIENCE, have
from tests.kit.agent import Agent, get

pytestmark = pytest.mark.interop

RULES = Path(__file__).parents[2] / "deploy/prometheus"
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""


def promtool(*arguments, text=None):
    machine = have(debian.prometheus)
    command = [machine.program("promtool"), *map(str, arguments)]
    done = subprocess.run(
        command,
        check=False,
        cwd=RULES,
        env=machine.environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rules_are_valid():
    files = sorted(RULES.glob("*.rules.yaml"))
    assert len(files) == 3
    status, output = promtool("check", "rules", "--lint-fatal", *files)
    assert status == 0, output
    assert output.count("SUCCESS") == len(files)


def test_invalid_rules_are_found(tmp_path):
    file = tmp_path / "wrong.rules.yaml"
    file.write_text("groups: [{name: a, rules: [{alert: A, expr: 'sum by job up'}]}]")
    assert promtool("check", "rules", file)[0] != 0


def test_the_alerts_are_raised_when_they_should_be():
    status, output = promtool("test", "rules", "rules_test.yaml")
    assert status == 0, output


def test_prometheus_can_read_the_metrics(tmp_path):
    with Agent(CONFIG, tmp_path, metrics=True) as agent:
        text = get(agent.metrics_port, "/metrics")[1]
    status, output = promtool("check", "metrics", text=text)
    assert "error while linting" not in output, output
    assert status in (0, 3), output  # 3: parsed, with remarks on style, such as the Collector's names of counters
