"""Options that several commands share, and functions that load what they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import Source, load
from otelwp_agent.pipeline.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.config.document import Document
    from otelwp_agent.pipeline.plan_types import Plan

F = TypeVar("F", bound="Callable[..., Any]")


def config_options(command: F, *, required: bool = True) -> F:
    """Add the repeatable options `--config` (as `config`) and `--set` (as `overrides`) to a command."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one value, which overrides all files: `processors.batch.timeout=5s`. Repeatable.",
    )(command)
    return click.option(
        "--config",
        "-c",
        "config",
        multiple=True,
        required=required,
        metavar="SOURCE",
        help="A file; or `file:PATH`, `env:NAME` (YAML in a variable), `yaml:…` (YAML itself). "
        "Repeatable: maps are merged, lists and values replace earlier ones.",
    )(command)


def agent_options(command: F) -> F:
    """Add `--config`, `--set` and `--socket`, all optional, to a command that queries a running agent."""
    command = click.option(
        "--socket",
        metavar="PATH",
        help="The control socket of the agent; not needed with --config.",
    )(command)
    return config_options(command, required=False)


def load_document(config: Sequence[str], overrides: Sequence[str]) -> Document:
    """Load and merge the sources that the options name; raise `ConfigError` if that fails."""
    return load([Source.parse(text) for text in config], overrides)


def load_plan(config: Sequence[str], overrides: Sequence[str]) -> Plan:
    """Return the plan of the configuration that the options name; raise `ConfigError` with all its problems."""
    return make_plan(load_document(config, overrides), Catalog())


def parse_pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """Return `NAME=VALUE` texts as a map; raise `BadParameter`."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            message = f"{text!r}: write {what} as NAME=VALUE"
            raise click.BadParameter(message)
        pairs[name.strip()] = value.strip()
    return pairs
