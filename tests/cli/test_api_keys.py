from otelwp_agent.control import api_keys


def test_a_new_key_is_alone_on_stdout(command):
    command("tenants", "create", "acme")
    status, out, err = command(
        "api-keys", "create", "acme", "--scope", "usage", "--scope", "ingest", "--expires", "30d"
    )
    id_ = api_keys.parse(out.strip())
    assert (status, out.count("\n"), id_ is not None) == (0, 1, True)
    assert f"created key {id_} of tenant acme. Store it now: it cannot be shown again.\n" in err
    (key,) = command("api-keys", "list", "--json")
    assert (key["id"], key["scopes"], key["state"], key["last_used"]) == (id_, ["ingest", "usage"], "live", None)
    assert key["expires"] is not None
    _, out, _ = command("api-keys", "list", "acme")
    assert out.splitlines()[1].split()[:5] == [id_, "acme", "default", "ingest,usage", "live"]


def test_rotate_and_revoke(command):
    command("tenants", "create", "acme")
    old = command("api-keys", "create", "acme", "--json")
    new = command("api-keys", "rotate", old["id"], "--grace", "1h", "--json")
    assert api_keys.parse(new["key"]) == new["id"] != old["id"]
    status, out, _ = command("api-keys", "revoke", old["key"])
    assert (status, out) == (0, f"revoked key {old['id']} of tenant acme\n")
    assert [key["id"] for key in command("api-keys", "list", "--live", "--json")] == [new["id"]]
    status, out, err = command("api-keys", "rotate", new["id"], "--grace", "0")
    assert (status, api_keys.parse(out.strip()) is not None) == (0, True)
    assert f"which replaces {new['id']} (0 of grace)" in err
    assert [key["state"] for key in command("api-keys", "list", "--json")].count("revoked") == 2
    assert command("api-keys", "revoke", new["id"], "--json")["revoked"]


def test_what_is_refused(command):
    assert command("api-keys", "list") == (0, "", "no keys\n")
    for arguments, wanted in (
        (["create", "acme"], "there is no tenant 'acme'"),
        (["list", "acme"], "there is no tenant 'acme'"),
        (["revoke", "x"], "there is no API key with the id 'x'"),
    ):
        status, out, err = command("api-keys", *arguments)
        assert (status, out, wanted in err) == (1, "", True)
    for wrong in (
        ["create", "acme", "--scope", "all"],
        ["create", "acme", "--expires", "soon"],
        ["rotate", "x", "--grace", "1"],
    ):
        assert command("api-keys", *wrong)[0] == 2


def test_a_lost_pepper_is_named(command, tmp_path):
    command("tenants", "create", "acme")
    (tmp_path / "control.db.pepper").unlink()
    status, _, err = command("api-keys", "create", "acme")
    assert (status, "there is no pepper in" in err) == (1, True)
