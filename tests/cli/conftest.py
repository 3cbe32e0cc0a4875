import json

import pytest

from otelwp_agent.cli import main


@pytest.fixture
def store_url(tmp_path, monkeypatch):
    """Name a new store in SQLite to the commands, and return its URL."""
    url = f"sqlite:///{tmp_path}/control.db"
    monkeypatch.setenv("OTELWP_CONTROL_STORE", url)
    return url


@pytest.fixture
def command(store_url, capfd):
    """Run commands on a migrated store: return the status, stdout and stderr; with `--json`, the value on stdout."""

    def run(*arguments):
        status = main._run([*arguments])
        out, err = capfd.readouterr()
        if "--json" in arguments and status == 0:
            return json.loads(out)
        return status, out, err

    assert run("control", "migrate")[0] == 0
    return run
