from otelwp_agent.control import api_keys


def test_life(command):
    status, out, err = command("operators", "add", "alice", "--role", "viewer")
    first = api_keys.parse(out.strip(), api_keys.OPERATOR_TOKEN)
    assert (status, first is not None) == (0, True)
    assert "added operator alice with role viewer. Store the token now" in err
    assert command("operators", "set-role", "alice", "admin")[1] == "operator alice has role admin now\n"
    new = command("operators", "rotate-token", "alice", "--json")
    assert new["token_id"] == api_keys.parse(new["token"], api_keys.OPERATOR_TOKEN) != first
    _, out, _ = command("operators", "list")
    assert out.splitlines()[1].split()[:2] == ["alice", "admin"]
    assert command("operators", "list", "--json")[0]["token_id"] == new["token_id"]
    assert command("operators", "set-role", "alice", "viewer", "--json")["role"] == "viewer"
    assert command("operators", "remove", "alice")[1] == "removed operator alice\n"
    assert command("operators", "list") == (0, "", "no operators\n")


def test_what_is_refused(command):
    command("operators", "add", "alice", "--role", "viewer")
    for arguments, status, wanted in (
        (["add", "alice", "--role", "admin"], 1, "there is an operator alice already"),
        (["remove", "bob"], 1, "there is no operator 'bob'"),
        (["rotate-token", "bob"], 1, "there is no operator 'bob'"),
        (["add", "bob", "--role", "root"], 2, "root"),
        (["add", "bob"], 2, "--role"),
    ):
        found, _, err = command("operators", *arguments)
        assert (found, wanted in err) == (status, True)
