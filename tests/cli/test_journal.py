import json
import os

import pytest
from click.testing import CliRunner

from otelwp_agent.cli.main import cli
from otelwp_agent.model.receipt import Outcome
from tests.journal.conftest import Life


@pytest.fixture
async def life(tmp_path):
    """Return a journal of five requests, of which one is settled and one is half done."""
    life = Life(tmp_path / "journal")
    for number in range(5):
        (request,) = await life.put(b"body %d" % number)
        if number == 1:
            request.settle()
        if number == 2:
            request.claims[0].receipt.fork(["jaeger", "zipkin"])[0].settle(Outcome.DELIVERED, 2)
    await life.flush()
    yield life
    life.kill()


def verify(directory, *options):
    arguments = ["journal", "verify", "--directory", str(directory), *options]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    return result.return_value, result.output, result.exception


async def test_a_sound_journal(life):
    life.kill()
    status, output, _ = verify(life.journal.directory)
    assert status == 0, output
    assert "entries   5, the last is number 5, mark at 5\n" in output
    assert "waiting   traces: 4 requests, 8 items (jaeger is done with 1)\n" in output
    assert output.endswith("result    sound\n")


async def test_the_json_output_has_the_branches_that_are_done(life):
    life.kill()
    status, output, _ = verify(life.journal.directory, "--json")
    assert (status, json.loads(output)["waiting"]) == (
        0, {"traces": {"entries": 4, "items": 8, "done": {"jaeger": 1}}},
    )  # fmt: skip


async def test_an_agent_that_runs_is_noted_and_nothing_is_changed(life):
    before = {path: path.stat().st_mtime_ns for path in life.journal.directory.iterdir()}
    status, output, _ = verify(life.journal.directory)
    assert (status, "an agent uses it" in output) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in life.journal.directory.iterdir()} == before


@pytest.mark.parametrize("lost", ["a byte", "the end"])
async def test_damage_and_a_lost_end_are_problems(life, lost):
    life.kill()
    (segment,) = life.journal._entry_store.segments
    if lost == "a byte":
        data = bytearray(segment.path.read_bytes())
        data[segment.offsets[3] + 40] ^= 1
        segment.path.write_bytes(data)
    else:
        os.truncate(segment.path, segment.offsets[3])
    status, output, _ = verify(life.journal.directory, "--json")
    found = json.loads(output)
    assert (status, found["sound"]) == (1, False)
    wanted = "are damaged" if lost == "a byte" else "up to 2 acknowledged requests are lost"
    assert any(wanted in problem for problem in found["problems"])
    status, output, _ = verify(life.journal.directory)
    assert (status, "problem   " in output) == (1, True)


async def test_what_is_no_journal_is_an_error(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        _, _, error = verify(directory)
        assert str(directory) in str(error)


@pytest.fixture
async def encrypted(tmp_path):
    """Return the directory of an encrypted journal, and its key file."""
    key = tmp_path / "key"
    result = CliRunner().invoke(cli, ["journal", "new-key", str(key)], standalone_mode=False)
    assert result.exception is None
    life = Life(tmp_path / "encrypted", encryption={"key_file": str(key)})
    assert result.output == f"key {life.journal._store.keys.ids[0]} written to {key}\n"
    await life.put(b"a", b"b")
    life.kill()
    return life.journal.directory, key


def test_a_new_key_is_private_and_replaces_none(tmp_path):
    path = tmp_path / "key"
    run = CliRunner().invoke
    assert run(cli, ["journal", "new-key", str(path)], standalone_mode=False).exception is None
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert "exists: what it encrypts needs it" in str(
        run(cli, ["journal", "new-key", str(path)], standalone_mode=False).exception
    )
    assert path.read_bytes() == before
    error = run(cli, ["journal", "new-key", str(tmp_path / "none" / "key")], standalone_mode=False).exception
    assert "cannot write" in str(error)


async def test_an_encrypted_journal_is_verified_with_its_key_or_its_configuration(encrypted, tmp_path):
    directory, key = encrypted
    status, output, error = verify(directory)
    assert (status, "is encrypted; it needs key" in str(error)) == (None, True)
    status, output, _ = verify(directory, "--key-file", str(key))
    assert (status, "1 segment\n" in output, output.endswith("result    sound\n")) == (0, True, True)
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
exporters: {{debug: }}
service:
  journal: {{directory: '{directory}', encryption: {{key_file: '{key}'}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""
    )
    result = CliRunner().invoke(cli, ["journal", "verify", "--config", str(config)], standalone_mode=False)
    assert (result.return_value, result.output.endswith("result    sound\n")) == (0, True)
    audit = CliRunner().invoke(
        cli, ["audit", "--journal", str(directory), "--key-file", str(key)], standalone_mode=False
    )
    assert (audit.return_value, "every ledger balances" in audit.output) == (0, True)
    audit = CliRunner().invoke(cli, ["audit", "--journal", str(directory)], standalone_mode=False)
    assert "is encrypted; it needs key" in str(audit.exception)


def test_verify_needs_a_directory_or_a_configuration():
    result = CliRunner().invoke(cli, ["journal", "verify"], standalone_mode=False)
    assert "give the journal: --directory" in str(result.exception)
