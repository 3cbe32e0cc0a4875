import json

import pytest
from click.testing import CliRunner

from otelwp_agent.cli.main import cli
from otelwp_agent.licensing.public_keys import check_key
from otelwp_agent.licensing.signatures import public_text, read_private_key
from tests.statements.conftest import chain, key, keys  # noqa: F401 - fixtures


@pytest.fixture
def file(tmp_path, chain):  # noqa: F811 - the fixture
    path = tmp_path / "statements.txt"
    path.write_text("\n".join(chain(4)) + "\n")
    return path


@pytest.fixture
def verify(key):  # noqa: F811 - the fixture
    def run(*words):
        arguments = ["statement", "verify", *map(str, words), "--key", public_text(key)]
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
        return result.return_value, result.output, result.exception

    return run


def test_a_whole_file_is_valid_and_its_sums_are_shown(verify, file):
    status, output, _ = verify(file, "--last", "4", "--until", "1970-01-01T05:00:00Z")
    assert status == 0
    assert output == (
        "tenant shop, agent edge-1: statements 1 to 4\n"
        "  to 1970-01-01T05:00:00+00:00\n"
        "  pipeline traces: accepted 40, delivered 28, sampled_out 4, filtered 0, dropped 4, written_off 0, "
        "in_flight 4\n"
        "all statements are valid\n"
    )


def test_problems_are_listed_and_the_status_is_1(verify, file):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[2][:-9] + "AAAAAAAAA", lines[3]]))
    status, output, _ = verify(file)
    assert status == 1
    assert f"problem: {file}, line 2: its signature is not valid" in output
    assert "problem: tenant shop, agent edge-1: 2 missing: 2, 3\n" in output
    assert output.endswith("2 problems\n")
    assert verify(file, "--until", "1970-01-01T06:00:00")[0] == 1


def test_json_has_statements_and_problems(verify, file):
    status, output, _ = verify(file, "--json")
    data = json.loads(output)
    assert (status, data["valid"], data["problems"], len(data["chains"][0]["statements"])) == (0, True, [], 4)


def test_wrong_use_and_files_that_cannot_be_read_are_explained(verify, file):
    assert "cannot read none: No such file" in str(verify("none")[2])
    assert "--until: 'noon' is not a time" in str(verify(file, "--until", "noon")[2])
    result = CliRunner().invoke(cli, ["statement", "verify", str(file), "--key", "short"], standalone_mode=False)
    assert "--key: " in str(result.exception)


def test_a_new_key_is_private_and_its_public_key_is_printed(tmp_path):
    path, run = tmp_path / "key.pem", CliRunner().invoke
    result = run(cli, ["statement", "new-key", str(path)], standalone_mode=False)
    assert check_key(result.output.strip()) == public_text(read_private_key(path.read_bytes()))
    assert path.stat().st_mode & 0o777 == 0o600
    again = run(cli, ["statement", "new-key", str(path)], standalone_mode=False)
    assert "exists: statements may be signed with it" in str(again.exception)
    away = run(cli, ["statement", "new-key", str(tmp_path / "none" / "key")], standalone_mode=False)
    assert "cannot write" in str(away.exception)
