import click
import pytest
from click.testing import CliRunner

from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.cli.key_options import journal_keys, key_option, letter_keys
from otelwp_agent.config.service import ServiceConfig
from otelwp_agent.errors import StartError

JOURNAL, LETTERS = LocalKey.new(), LocalKey.new()


@pytest.fixture
def service():
    return ServiceConfig(
        journal={"directory": "/j", "encryption": {"key": JOURNAL.text}},
        dead_letter={"encryption": {"key": LETTERS.text}},
    )


def test_the_option_is_repeatable():
    @click.command()
    @key_option
    def command(key_files):
        click.echo(",".join(key_files))

    assert CliRunner().invoke(command, ["--key-file", "a", "--key-file", "b"]).output == "a,b\n"


def test_keys_come_from_the_configuration_and_the_option(service, tmp_path):
    key = LocalKey.new()
    path = tmp_path / "key"
    path.write_text(key.text)
    assert journal_keys([]) is None
    assert letter_keys([], ServiceConfig()) is None
    assert journal_keys([], service).ids == [JOURNAL.key_id]
    assert letter_keys([], service).ids == [LETTERS.key_id]
    assert journal_keys([str(path)], service).ids == [key.key_id, JOURNAL.key_id]


def test_a_file_that_cannot_be_read_is_an_error_that_names_the_option(tmp_path):
    with pytest.raises(StartError, match="--key-file: cannot read the key file"):
        journal_keys([str(tmp_path / "none")])
