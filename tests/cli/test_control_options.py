from datetime import UTC, datetime, timedelta

import click
import pytest

from otelwp_agent.cli import control_options, main

CONFIG = """
receivers: {otlp: {protocols: {http: null}}}
exporters: {debug: null}
extensions: {EXTENSIONS}
service:
  tier: enterprise
  extensions: [NAMES]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
"""


def config(tmp_path, extensions, names):
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG.replace("EXTENSIONS", extensions).replace("NAMES", names))
    return str(path)


def test_the_store_of_the_configuration(tmp_path, capfd):
    settings = f"control_store: {{url: 'sqlite:///{tmp_path}/c.db', pepper_file: '{tmp_path}/secret'}}"
    agent = config(tmp_path, settings, "control_store")
    assert main._run(["control", "migrate", "--config", agent]) == 0
    assert (tmp_path / "c.db").exists()
    assert (tmp_path / "secret").exists()
    assert main._run(["tenants", "list", "--config", agent, "--store", f"sqlite:///{tmp_path}/other.db"]) == 1
    assert "other.db" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("extensions", "names", "wanted"),
    [
        ("health_check: null", "health_check", "has no control store: configure the extension `control_store`"),
        ("control_store/a: null, control_store/b: null", "control_store/a", "has 2 control stores: choose one with"),
    ],
)
def test_a_configuration_that_names_no_store(tmp_path, capfd, extensions, names, wanted):
    assert main._run(["tenants", "list", "--config", config(tmp_path, extensions, names)]) == 1
    assert wanted in capfd.readouterr().err


def test_no_store_is_wrong_usage(monkeypatch, capfd):
    monkeypatch.delenv("OTELWP_CONTROL_STORE", raising=False)
    assert main._run(["tenants", "list"]) == 2
    assert "give the agent's --config FILE, or --store URL" in capfd.readouterr().err


def test_an_invalid_url(capfd):
    assert main._run(["tenants", "list", "--store", "mysql://me:hunter2@db/x"]) == 1
    err = capfd.readouterr().err
    assert "cannot be in 'mysql'" in err
    assert "hunter2" not in err


def test_without_the_extra_its_name_is_given(monkeypatch, capfd):
    def fail(name):
        raise ModuleNotFoundError(name="sqlalchemy")

    monkeypatch.setattr(main, "import_module", fail)
    assert main._run(["tenants", "list"]) == 1
    assert "pip install 'otelwp-agent[control]'" in capfd.readouterr().err


def test_times_of_expiry():
    assert control_options.parse_expiry(None) is None
    assert control_options.parse_expiry("2030-01-02T03:04:05Z") == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    wanted = datetime.now(UTC) + timedelta(days=90)
    assert abs(control_options.parse_expiry("90d") - wanted) < timedelta(minutes=1)
    for wrong in ("soon", "90", "99999999999999d"):
        with pytest.raises(click.BadParameter):
            control_options.parse_expiry(wrong)


def test_lists_are_read_page_by_page():
    rows = list("abcdefg")
    assert control_options.all_pages(lambda after: [row for row in rows if row > after][:3], str) == rows


def test_the_author_of_changes_is_the_user(monkeypatch):
    assert control_options.actor().name.startswith("cli:")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    assert control_options.actor().name == "cli:4000000"
