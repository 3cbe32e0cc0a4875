import json


def test_life(command):
    status, out, _ = command("tenants", "create", "acme", "--name", "Acme", "--plan", "pro", "--attribute", "region=eu")
    assert (status, out) == (0, "created tenant acme with plan pro\n")
    assert command("tenants", "suspend", "acme")[1] == "suspended tenant acme\n"
    assert command("tenants", "list", "--status", "suspended", "--json")[0]["id"] == "acme"
    assert command("tenants", "resume", "acme")[1] == "resumed tenant acme\n"
    assert command("tenants", "set-plan", "acme", "free")[1] == "tenant acme has plan free now\n"
    key = command("api-keys", "create", "acme", "--json")
    status, out, _ = command("tenants", "show", "acme")
    assert "attributes  region=eu\n" in out
    assert f"key {key['id']}  default  live\n" in out
    shown = command("tenants", "show", "acme", "--json")
    assert (shown["plan"], shown["status"], shown["keys"][0]["id"]) == ("free", "active", key["id"])
    assert shown["tier"] == "free"


def test_lists(command):
    assert command("tenants", "list") == (0, "", "no tenants\n")
    for name, plan in (("b", "pro"), ("a", "free")):
        assert command("tenants", "create", name, "--plan", plan, "--json")["plan"] == plan
    _, out, _ = command("tenants", "list")
    assert [line.split()[0] for line in out.splitlines()] == ["id", "a", "b"]
    assert [tenant["id"] for tenant in command("tenants", "list", "--plan", "pro", "--json")] == ["b"]


def test_what_is_refused(command):
    command("tenants", "create", "acme")
    for arguments, wanted in (
        (["create", "acme"], "there is a tenant acme already"),
        (["create", "A"], "is not a valid id"),
        (["create", "b", "--plan", "gold"], "there is no plan 'gold'"),
        (["show", "b"], "there is no tenant 'b'"),
        (["suspend", "b"], "there is no tenant 'b'"),
    ):
        status, out, err = command("tenants", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: {wanted}") or wanted in err
    assert command("tenants", "create", "b", "--attribute", "x")[0] == 2


def test_each_change_is_in_the_audit_log(command):
    command("tenants", "create", "acme")
    command("tenants", "suspend", "acme")
    command("tenants", "suspend", "other")
    log = command("audit", "log", "list", "--json")
    assert [event["action"] for event in log] == ["tenant.suspend", "tenant.create"]
    assert json.dumps(log[0]["after"]["status"]) == '"suspended"'
