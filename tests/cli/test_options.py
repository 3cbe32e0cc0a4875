import click
import pytest
from click.testing import CliRunner

from otelwp_agent.cli.options import config_options, load_document, load_plan, parse_pairs
from otelwp_agent.errors import ConfigError


def test_a_command_gets_both_options_in_order():
    @click.command()
    @config_options
    def show(config, overrides):
        click.echo(f"{config} {overrides}")

    result = CliRunner().invoke(show, ["-c", "a", "--set", "x=1", "--config", "b", "--set", "y=2"])
    assert result.stdout == "('a', 'b') ('x=1', 'y=2')\n"


def test_sources_are_read_from_the_process_own_environment(monkeypatch):
    monkeypatch.setenv("OTELWP_TEST_CONFIG", "a: ${env:OTELWP_TEST_VALUE}")
    monkeypatch.setenv("OTELWP_TEST_VALUE", "5")
    assert load_document(["env:OTELWP_TEST_CONFIG"], ["b=6"]).data() == {"a": 5, "b": 6}


def test_a_plan_or_every_problem():
    with pytest.raises(ConfigError, match="there is no section `a`"):
        load_plan(["yaml:a: 1"], [])


def test_pairs():
    assert parse_pairs(["a=b=c", "d="], "attributes") == {"a": "b=c", "d": ""}
    for wrong in ("a", "=b"):
        with pytest.raises(click.BadParameter, match="write attributes as NAME=VALUE"):
            parse_pairs([wrong], "attributes")
