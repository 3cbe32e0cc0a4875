import json
import sqlite3

from otelwp_agent.cli import main
from otelwp_agent.control.revisions import HEAD


def test_migrate_says_what_it_has_done(store_url, tmp_path, capfd):
    assert main._run(["control", "migrate"]) == 0
    out = capfd.readouterr().out
    assert f"created the control store {tmp_path}/control.db, revision {HEAD}\n" in out
    assert f"created the pepper {tmp_path}/control.db.pepper: back it up" in out
    assert main._run(["control", "migrate"]) == 0
    assert capfd.readouterr().out == f"the control store {tmp_path}/control.db has revision {HEAD} already\n"
    assert main._run(["control", "migrate", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "store": f"{tmp_path}/control.db",
        "before": HEAD,
        "revision": HEAD,
        "pepper": f"{tmp_path}/control.db.pepper",
        "pepper_created": False,
    }


def test_check_of_a_sound_store(command):
    command("tenants", "create", "acme")
    command("api-keys", "create", "acme")
    found = command("control", "check", "--json")
    assert (found["tenants"], found["keys"], found["operators"], found["problems"]) == (1, 1, 0, [])
    status, out, _ = command("control", "check")
    assert (status, out.splitlines()[-1]) == (0, "no problems")


def test_check_lists_every_problem(command, tmp_path):
    command("tenants", "create", "acme")
    database = sqlite3.connect(tmp_path / "control.db")
    database.executescript("DROP TRIGGER audit_log_refuses_update; UPDATE audit_log SET actor = 'x'")
    database.close()
    (tmp_path / "control.db.pepper").unlink()
    status, _, err = command("control", "check")
    assert status == 1
    assert "problem: row 1 was altered" in err
    assert "problem: there is no pepper in" in err
    status, out, _ = command("control", "check", "--json")
    assert (status, len(json.loads(out)["problems"])) == (1, 2)


def test_check_of_what_is_no_store(store_url, tmp_path, capfd):
    assert main._run(["control", "check"]) == 1
    assert "problem: there is no control store at" in capfd.readouterr().err
    (tmp_path / "control.db").write_bytes(b"nonsense" * 1000)
    assert main._run(["control", "check"]) == 1
    assert "not an SQLite database" in capfd.readouterr().err
    assert main._run(["control", "migrate"]) == 1
    assert "not an SQLite database" in capfd.readouterr().err
