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
