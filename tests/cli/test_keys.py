import json
import time

import pytest
from click.testing import CliRunner

from otelwp_agent.cli.keys import keys
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.sealing.envelope import SealedHeader, parse, seal, unseal
from otelwp_agent.sealing.key_files import read_key_ring
from otelwp_agent.sealing.key_set import verify_key_set
from otelwp_agent.sealing.suites import SealingSuite


def command(*arguments):
    result = CliRunner().invoke(keys, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def listed(directory):
    return json.loads(command("list", directory, "--json").stdout)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def public_key(directory):
    return command("generate", directory).stdout.strip()


@pytest.mark.parametrize("suite", [suite.name for suite in SealingSuite])
def test_generated_keys_seal_and_open(directory, suite):
    public = command("generate", directory, "--suite", suite).stdout.strip()
    recipient = verify_key_set((directory / "key-set.jws").read_text(), load_keys([public])).recipient(time.time())
    ring = read_key_ring((directory / "opening-keys.json").read_text())
    sealed = seal(recipient, SealedHeader("acme", int(time.time() * 1000)), b"spans")
    assert unseal(parse(sealed), ring, time.time()) == b"spans"
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"opening-keys.json": 0o600, "signing.key": 0o600, "key-set.jws": 0o644}


def test_a_rotation_adds_a_key_and_lets_the_old_one_end(directory, public_key):
    before = listed(directory)
    assert "key set 2" in command("rotate", directory, "--lead", "30m", "--overlap", "2d").stdout
    after = listed(directory)
    assert (before["version"], after["version"]) == (1, 2)
    old, new = after["keys"]
    assert (old["key_id"], old["state"]) == (before["keys"][0]["key_id"], "in use")
    assert (new["state"], new["not_after"]) == ("next", None)
    assert 1700 < new["not_before"] - time.time() <= 1800
    assert old["not_after"] == new["not_before"] + 2 * 86400
    key_set = verify_key_set((directory / "key-set.jws").read_text(), load_keys([public_key]))
    assert [one.key_id for one in key_set.recipients] == [old["key_id"], new["key_id"]]
    assert "private" not in json.dumps(after)


def test_a_rotation_at_once_ends_the_old_key_and_the_next_one_removes_it(directory, public_key):
    command("rotate", directory, "--lead", "0", "--overlap", "0")
    assert [key["state"] for key in listed(directory)["keys"]] == ["ended", "in use"]
    command("rotate", directory, "--suite", "MLKEM768_X25519", "--lead", "0", "--all-suites")
    assert [key["state"] for key in listed(directory)["keys"]] == ["opens", "in use"]
    lines = command("list", directory).stdout.splitlines()
    assert lines[0].split()[:3] == ["key", "suite", "state"]
    assert lines[2].split()[1:4] == ["MLKEM768_X25519", "in", "use"]


def test_the_signing_key_may_be_elsewhere(directory, public_key, tmp_path):
    elsewhere = tmp_path / "vault.key"
    (directory / "signing.key").rename(elsewhere)
    with pytest.raises(AgentError, match="--signing-key"):
        command("rotate", directory)
    assert listed(directory)["version"] == 1
    command("rotate", directory, "--signing-key", elsewhere)
    verify_key_set((directory / "key-set.jws").read_text(), load_keys([public_key]))


def test_existing_keys_are_not_overwritten(directory, public_key):
    before = (directory / "opening-keys.json").read_text()
    with pytest.raises(AgentError, match="use `keys rotate`"):
        command("generate", directory)
    assert (directory / "opening-keys.json").read_text() == before


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("opening-keys.json", "{}", "invalid member"),
        ("opening-keys.json", "\0", "is not JSON"),
        ("signing.key", "nonsense", "is not an Ed25519 private key"),
    ],
)
def test_damaged_files_are_named(directory, public_key, name, text, problem):
    (directory / name).write_text(text)
    with pytest.raises(AgentError, match=problem) as caught:
        command("rotate", directory)
    assert name in str(caught.value)


def test_what_cannot_be_done_is_refused(tmp_path, directory):
    for arguments in (["rotate", directory], ["list", directory], ["generate", "/proc/keys/of/otelwp"]):
        with pytest.raises(AgentError, match=r"keys|proc"):
            command(*arguments)
    assert command("generate", directory, "--suite", "RSA").exit_code == 2
    assert command("rotate", directory, "--lead", "soon").exit_code == 2
    assert not directory.exists()
