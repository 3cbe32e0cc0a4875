from __future__ import annotations

import json

from click.testing import CliRunner

from otelwp_agent.cli.route import route

CONFIG = """
receivers: {otlp: {protocols: {http: }}}
exporters: {debug: }
connectors:
  routing:
    default_pipelines: [traces/rest]
    table:
      - {condition: 'attributes["service.name"] == "shop"', pipelines: [traces/shop]}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [routing]}
    traces/shop: {receivers: [routing], exporters: [debug]}
    traces/rest: {receivers: [routing], exporters: [debug]}
"""


def run(tmp_path, *arguments):
    (tmp_path / "agent.yaml").write_text(CONFIG)
    request = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                "scopeSpans": [{"spans": [{"traceId": "01" * 16, "spanId": "02" * 8, "name": f"GET /{service}"}]}],
            }
            for service in ("shop", "blog")
        ]
    }
    (tmp_path / "spans.jsonl").write_text(json.dumps(request) + "\n")
    command, *rest = arguments
    return CliRunner().invoke(route, [command, "--config", str(tmp_path / "agent.yaml"), *rest], catch_exceptions=False)


def test_explain(tmp_path):
    result = run(tmp_path, "explain", "--input", str(tmp_path / "spans.jsonl"))
    assert result.output.splitlines() == [
        "GET /shop  ->  traces/shop",
        '  rule 1 matches: attributes["service.name"] == "shop"',
        '      resource.attributes["service.name"] is "shop"',
        "GET /blog  ->  traces/rest",
        '  rule 1 does not match: attributes["service.name"] == "shop"',
        '      resource.attributes["service.name"] is "blog"',
        "  no rule takes it: the default pipelines get it",
    ]


def test_explain_as_json(tmp_path):
    result = run(tmp_path, "explain", "--json", "--input", str(tmp_path / "spans.jsonl"), "--header", "X-A=b")
    first, second = map(json.loads, result.output.splitlines())
    assert (first["name"], first["pipelines"]) == ("GET /shop", ["traces/shop"])
    assert second["rules"][0]["facts"] == {'resource.attributes["service.name"]': "blog"}


def test_draw(tmp_path):
    assert run(tmp_path, "draw").output.startswith("flowchart LR\n")
    assert run(tmp_path, "draw", "--dot").output.startswith("digraph routing {\n")


def test_a_wrong_header(tmp_path):
    result = run(tmp_path, "explain", "--input", str(tmp_path / "spans.jsonl"), "--header", "X-A")
    assert result.exit_code == 2
    assert "is not NAME=VALUE" in result.output
