import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from otelwp_agent.cli.print_config import print_config
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan

VALID = Path(__file__).parents[1] / "config" / "corpus" / "valid"
TEXT = """
receivers: {otlp: {protocols: {grpc: , http: }}}
processors:
  batch: {timeout: 1m30s}
  attributes: {actions: [{key: price, value: "5$$ 0o17", action: insert}, {key: n, value: "1e3", action: insert}]}
exporters:
  otlp:
    endpoint: ${env:BACKEND:-localhost:4317}
    headers: {authorization: Bearer geheim}
    tls: {cert_pem: geheim, key_pem: geheim}
service:
  telemetry: {metrics: {address: none}}
  pipelines: {traces: {receivers: [otlp], processors: [batch, attributes], exporters: [otlp]}}
"""


def printed(*arguments):
    result = CliRunner().invoke(print_config, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_prints_what_was_written_merged_and_expanded_without_secrets():
    data = yaml.safe_load(printed("-c", f"yaml:{TEXT}", "--set", "exporters.otlp.timeout=500ms"))
    assert data["exporters"]["otlp"] == {
        "endpoint": "localhost:4317",
        "headers": {"authorization": "[REDACTED]"},
        "tls": {"cert_pem": "[REDACTED]", "key_pem": "[REDACTED]"},
        "timeout": "500ms",
    }
    assert data["receivers"] == {"otlp": {"protocols": {"grpc": {}, "http": {}}}}
    assert data["processors"]["batch"] == {"timeout": "1m30s"}
    assert data["processors"]["attributes"]["actions"][0]["value"] == "5$$ 0o17"
    assert data["service"]["telemetry"] == {"metrics": {"address": "none"}}
    assert [*data] == ["receivers", "processors", "exporters", "service"]


@pytest.mark.parametrize("arguments", [[], ["--defaults"], ["--format", "json"], ["--format", "json", "--defaults"]])
def test_secrets_never_come_out(arguments):
    assert "geheim" not in printed("-c", f"yaml:{TEXT}", *arguments)


def test_json_says_the_same():
    assert json.loads(printed("-c", f"yaml:{TEXT}", "--format", "json")) == yaml.safe_load(
        printed("-c", f"yaml:{TEXT}")
    )


def test_defaults_shows_every_field():
    data = yaml.safe_load(printed("-c", f"yaml:{TEXT}", "--defaults"))
    assert data["exporters"]["otlp"]["retry_on_failure"]["initial_interval"] == "5s"
    assert data["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "127.0.0.1:4318"
    assert data["service"]["shutdown_timeout"] == "30s"


@pytest.mark.parametrize("defaults", [False, True])
@pytest.mark.parametrize("path", sorted(VALID.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_printed_loads_again_as_the_same(path, defaults, monkeypatch):
    variables = {
        "MY_POD_IP": "10.0.0.1",
        "PORT": "8888",
        "RECEIVERS": "[otlp]",
        "KEY": "0123",
        "EXPORTERS": "[debug,otlp_http]",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = make_plan(load([str(path)]), Catalog())
    text = printed("-c", str(path), *(["--defaults"] if defaults else []))
    after = make_plan(load([f"yaml:{text}"]), Catalog())
    assert after.pipelines == before.pipelines
    assert [*after.unused] == [*before.unused]
    for key, planned in before.components.items():
        again = after.components[key]
        assert again.config.model_dump_json() == planned.config.model_dump_json()  # secrets are stars in both
    assert after.service.telemetry.metrics.address == before.service.telemetry.metrics.address


URL = "https://api.example/v1/0123abcd4567ef890123abcd4567ef89/spans?api_key=geheim"


@pytest.mark.parametrize("arguments", [[], ["--defaults"], ["--format", "json"]])
def test_secrets_in_endpoints_are_redacted(arguments):
    exporters = f"exporters: {{otlp_http: {{traces_endpoint: '{URL}'}}, zipkin: {{endpoint: '{URL}'}}}}"
    service = "service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_http, zipkin]}}}"
    text = f"receivers: {{otlp: {{protocols: {{http: }}}}}}\n{exporters}\n{service}"
    output = printed("-c", f"yaml:{text}", *arguments)
    data = yaml.safe_load(output)
    redacted = "https://api.example/v1/***/spans?api_key=***"
    assert data["exporters"]["otlp_http"]["traces_endpoint"] == redacted
    assert data["exporters"]["zipkin"]["endpoint"] == redacted
    assert "geheim" not in output
