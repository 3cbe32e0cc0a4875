def test_life(command):
    status, out, _ = command(
        *("plans", "set", "gold", "--tier", "pro", "--retention-days", "7"),
        *("--limit", "requests_per_second=50", "--limit", "items_per_second=0.5"),
    )
    assert (status, out) == (0, "plan gold: tier pro, requests_per_second=50 items_per_second=0.5\n")
    _, out, _ = command("plans", "show", "gold")
    assert ["retention", "7d"] in [line.split() for line in out.splitlines()]
    assert ["item_burst", "-"] in [line.split() for line in out.splitlines()]
    assert command("plans", "show", "gold", "--json") == {
        "name": "gold",
        "tier": "pro",
        "limits": {"requests_per_second": 50, "items_per_second": 0.5},
        "retention_days": 7,
    }
    assert command("plans", "set", "gold", "--tier", "free", "--json")["limits"] == {}
    _, out, _ = command("plans", "list")
    assert out.splitlines()[3].split() == ["gold", "free", "-", "no", "limits"]
    assert command("plans", "delete", "gold")[1] == "deleted plan gold\n"
    assert [plan["name"] for plan in command("plans", "list", "--json")] == ["enterprise", "free", "pro"]
    assert command("plans", "delete", "pro", "--json") == {"deleted": "pro"}


def test_what_is_refused(command):
    command("tenants", "create", "acme")
    for arguments, wanted in (
        (["delete", "free"], "plan free has 1 tenant"),
        (["show", "gold"], "there is no plan 'gold'"),
        (["set", "gold", "--tier", "pro", "--limit", "spans=5"], "spans: no such limit"),
        (["set", "gold", "--tier", "pro", "--limit", "item_burst=0"], "item_burst must be a number above 0"),
        (["set", "gold", "--tier", "pro", "--limit", "item_burst=nan"], "item_burst must be a number above 0"),
    ):
        status, _, err = command("plans", *arguments)
        assert (status, wanted in err) == (1, True)
    for wrong in (["set", "gold"], ["set", "gold", "--tier", "pro", "--limit", "item_burst=many"]):
        assert command("plans", *wrong)[0] == 2
