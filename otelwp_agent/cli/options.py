"""The options that several commands share, and what they mean."""

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
    """Give a command `--config` (as `config`) and `--set` (as `overrides`), both repeatable."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one value, after all files: `processors.batch.timeout=5s`. Repeatable.",
    )(command)
    return click.option(
        "--config",
        "-c",
        "config",
        multiple=True,
        required=required,
        metavar="SOURCE",
        help="A file; or `file:PATH`, `env:NAME` (YAML in a variable), `yaml:…` (YAML itself). "
        "Repeatable: maps merge, lists and values replace what came before.",
    )(command)


def agent_options(command: F) -> F:
    """Give a command that asks a running agent `--config`, `--set` and `--socket`, none of them required."""
    command = click.option(
        "--socket",
        metavar="PATH",
        help="The control socket of the agent, where no configuration tells it.",
    )(command)
    return config_options(command, required=False)


def load_document(config: Sequence[str], overrides: Sequence[str]) -> Document:
    """Return what the options' sources hold; raise `ConfigError`."""
    return load([Source.parse(text) for text in config], overrides)


def load_plan(config: Sequence[str], overrides: Sequence[str]) -> Plan:
    """Return the plan that the options describe; raise `ConfigError` with everything that is wrong."""
    return make_plan(load_document(config, overrides), Catalog())
