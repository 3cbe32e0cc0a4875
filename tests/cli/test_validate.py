import pytest
from click.testing import CliRunner

from otelwp_agent.cli.validate import validate
from otelwp_agent.errors import ConfigError
from tests.licensing.issuer import ISSUER

GOOD = """
receivers: {otlp: {protocols: {http: }}}
exporters: {debug: , debug/unused: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""


def test_a_good_file_is_counted_and_warnings_go_to_stderr(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    result = CliRunner().invoke(validate, ["--config", str(tmp_path / "a.yaml")])
    assert (result.exit_code, result.stdout) == (0, "OK: 1 pipeline, 2 components\n")
    assert result.stderr.startswith(
        f"warning: {tmp_path}/a.yaml:3:22: exporters.debug/unused: this exporter does not run"
    )


def test_files_and_settings_lie_over_each_other(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    arguments = [
        "-c",
        str(tmp_path / "a.yaml"),
        "-c",
        "yaml:service::pipelines: {logs: {receivers: [otlp], exporters: [debug]}}",
    ]
    result = CliRunner().invoke(validate, [*arguments, "--set", "service.pipelines.logs.exporters=[debug/unused]"])
    assert (result.stdout, result.stderr) == ("OK: 2 pipelines, 3 components\n", "")


def test_a_bad_file_raises_everything_for_main_to_print(tmp_path):
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(validate, ["-c", "yaml:a: 1"], catch_exceptions=False)
    assert len(caught.value.problems) == 2


def test_without_a_file_it_is_wrong_usage():
    result = CliRunner().invoke(validate, [])
    assert result.exit_code == 2
    assert "--config" in result.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://u:geheim@api.example/v1/traces",
        "https://api.example:99999/0123abcd4567ef890123abcd4567ef89?key=geheim",
        "ftp://u:geheim@api.example/",
        "u:geheim@api.example/0123abcd4567ef890123abcd4567ef89?key=geheim",
        "https://geheim[@api.example/",
    ],
)
@pytest.mark.parametrize("exporter", ["otlp_http", "zipkin"])
def test_problems_of_endpoints_show_no_secrets(exporter, endpoint):
    bad = GOOD.replace("debug: ", f"{exporter}: {{endpoint: '{endpoint}'}}, debug: ")
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(validate, ["-c", f"yaml:{bad}"], catch_exceptions=False)
    problems = " ".join(str(problem) for problem in caught.value.problems)
    assert exporter in problems
    assert "geheim" not in problems
    assert "0123abcd" not in problems


LICENSED = """
receivers: {otlp: {protocols: {http: }}}
processors: {batch: }
exporters: {jaeger: {endpoint: 'a:1'}}
service:
  license: {key: KEY, public_keys: [PUBLIC]}
  pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: [jaeger]}}
"""


@pytest.mark.parametrize(("tier", "warned"), [("pro", False), ("free", True)])
def test_what_a_licence_does_not_enable_is_a_warning_because_the_agent_starts_without_it(tier, warned):
    text = LICENSED.replace("KEY", ISSUER.issue(tier=tier)).replace("PUBLIC", ISSUER.public)
    result = CliRunner().invoke(validate, ["-c", f"yaml:{text}"])
    assert (result.exit_code, result.stdout) == (0, "OK: 1 pipeline, 3 components\n")
    assert f"tier {tier}: licence shop-1 of Shop Ltd" in result.stderr
    warning = "warning: yaml:3:14: processors.batch: this processor needs tier `pro`, but the tier of this agent is"
    assert (warning in result.stderr) == warned


def test_a_distributor_can_require_a_licence(monkeypatch):
    text = LICENSED.replace("  license: {key: KEY, public_keys: [PUBLIC]}\n", "")
    assert "tier" not in CliRunner().invoke(validate, ["-c", f"yaml:{text}"]).stderr
    monkeypatch.setenv("OTELWP_REQUIRE_LICENSE", "1")
    assert "this processor needs tier `pro`" in CliRunner().invoke(validate, ["-c", f"yaml:{text}"]).stderr
