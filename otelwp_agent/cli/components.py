"""`otelwp-agent components`: list the available components."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from otelwp_agent.component import Kind
from otelwp_agent.components import ALIASES, Catalog
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.component import Factory
    from otelwp_agent.errors import LoadError

_COLUMNS = ("kind", "type", "signals", "tier", "stability", "description")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def components(as_json: bool) -> int:  # noqa: FBT001 - click's way to give a flag
    """List the components that pipelines can use.

    Exit status: 1 if a third-party component cannot be loaded; the others are listed.
    """
    broken: list[LoadError] = []
    found = [_describe(factory) for factory in Catalog().factories(broken.append)]
    for error in broken:
        click.echo(f"error: {error}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _table(found)
    return 1 if broken else 0


def _table(found: Sequence[dict[str, str | list[str]]]) -> None:
    """Print one line for each component."""
    rows = [_COLUMNS, *([_cell(one[column]) for column in _COLUMNS] for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


def _describe(factory: Factory) -> dict[str, str | list[str]]:
    """Return the properties of one component that are printed."""
    aliases = {*factory.aliases} | {
        alias for alias, type_ in ALIASES.get(factory.kind, {}).items() if type_ == factory.type
    }
    return {
        "kind": factory.kind.label,
        "type": factory.type,
        "aliases": sorted(aliases),
        "signals": _signals(factory),
        "tier": factory.tier.value,
        "stability": factory.stability.value,
        "description": _first_line(factory),
    }


def _signals(factory: Factory) -> list[str]:
    if factory.kind is Kind.EXTENSION:
        return []
    return [signal.value for signal in Signal if signal in factory.signals]


def _first_line(factory: Factory) -> str:
    """Return the first sentence of the docstring of the component's module."""
    document = sys.modules[factory.config.__module__].__doc__ or ""
    return " ".join(document.strip().split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def _cell(value: str | list[str]) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return value
