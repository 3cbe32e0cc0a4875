import json
import sqlite3


def tamper(tmp_path, statement):
    database = sqlite3.connect(tmp_path / "control.db")
    database.executescript(f"DROP TRIGGER audit_log_refuses_update; DROP TRIGGER audit_log_refuses_delete; {statement}")
    database.close()


def test_list(command):
    assert command("audit", "log", "list") == (0, "", "the audit log is empty\n")
    command("tenants", "create", "acme")
    command("tenants", "create", "other")
    _, out, _ = command("audit", "log", "list")
    assert [line.split()[0] for line in out.splitlines()] == ["row", "2", "1"]
    assert out.splitlines()[1].split()[-2:] == ["tenant.create", "other"]
    (event,) = command("audit", "log", "list", "--target", "acme", "--json")
    assert (event["sequence"], event["actor"].startswith("cli:"), event["after"]["id"]) == (1, True, "acme")
    assert len(command("audit", "log", "list", "--limit", "1", "--json")) == 1


def test_an_intact_log(command):
    command("tenants", "create", "acme")
    found = command("audit", "log", "verify", "--json")
    assert (found["intact"], found["rows"], found["problems"]) == (True, 1, [])
    status, out, _ = command("audit", "log", "verify", "--head", found["head"])
    assert (status, out) == (0, f"1 row, intact\nhead {found['head']}\n")


def test_an_altered_row_is_named(command, tmp_path):
    command("tenants", "create", "acme")
    tamper(tmp_path, "UPDATE audit_log SET actor = 'cli:other'")
    status, out, err = command("audit", "log", "verify")
    assert (status, "1 row, ALTERED" in out) == (1, True)
    assert "row 1 was altered: its content does not match its hash\n" in err
    status, out, _ = command("audit", "log", "verify", "--json")
    assert (status, json.loads(out)["intact"]) == (1, False)


def test_a_removed_end_is_found(command, tmp_path):
    command("tenants", "create", "acme")
    command("tenants", "create", "other")
    tamper(tmp_path, "DELETE FROM audit_log WHERE sequence = 2")
    status, _, err = command("audit", "log", "verify")
    assert (status, "the log's end was changed" in err) == (1, True)


def test_an_invalid_head(command):
    status, _, err = command("audit", "log", "verify", "--head", "x")
    assert (status, "SEQUENCE:HASH" in err) == (1, True)


def test_the_audit_of_the_ledgers_is_still_there(command):
    status, _, err = command("audit")
    assert (status, "give what to audit" in err) == (2, True)
    status, out, _ = command("audit", "--help")
    assert "log" in out.rpartition("Commands:")[2]
