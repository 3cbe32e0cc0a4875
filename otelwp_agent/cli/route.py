"""`otelwp-agent route`: explain where the connector `routing` sends recorded telemetry, and draw its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.component import Kind
from otelwp_agent.connectors.routing import Config, table_of
from otelwp_agent.errors import AgentError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.replay.recordings import Recording
from otelwp_agent.routing.drawing import dot, mermaid
from otelwp_agent.routing.explanation import Explained, explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.routing.table import Targets

_connector_option = click.option("--connector", default="", metavar="ID", help="The connector, if there are several.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group()
def route() -> None:
    """Explain the rules of the connector `routing`."""


@route.command("explain")
@config_options
@_connector_option
@click.option(
    "--input",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Traces as the exporter `file` writes them: OTLP/JSON, one request per line. May be repeated.",
)
@click.option("--tenant", default="", metavar="NAME", help="The tenant of the requests.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of the requests. May be repeated."
)
@_json_option
def explain_command(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    connector: str,
    files: Sequence[Path],
    tenant: str,
    headers: Sequence[str],
    as_json: bool,
) -> None:
    """Show for each span which rule takes it, and why the rules before do not."""
    settings = _settings(load_plan(config, overrides), connector)
    table = table_of(settings, Signal.TRACES)
    origin = Origin("file", "file", tenant, dict(map(_header, headers)))
    recording = Recording()
    for recorded in recording.from_files(files):
        for explained in explain(table, Signal.TRACES, recorded.body, origin, whole_traces=settings.whole_traces):
            if as_json:
                click.echo(json.dumps(_as_json(explained), ensure_ascii=False))
            else:
                click.echo("\n".join(_lines(explained)))
    for reason, number in recording.skipped.items():
        click.echo(f"left out: {number} ({reason})", err=True)


@route.command()
@config_options
@_connector_option
@click.option("--signal", type=click.Choice([each.value for each in Signal]), default="traces", show_default=True)
@click.option("--dot", "as_dot", is_flag=True, help="Print Graphviz's language instead of Mermaid's.")
def draw(*, config: Sequence[str], overrides: Sequence[str], connector: str, signal: str, as_dot: bool) -> None:
    """Draw the table as a Mermaid flowchart, which Markdown viewers show."""
    table = table_of(_settings(load_plan(config, overrides), connector), Signal(signal))
    click.echo(dot(table) if as_dot else mermaid(table), nl=False)


def _settings(plan: Plan, wanted: str) -> Config:
    """Return the settings of the connector; raise `AgentError` if it is not clear which one."""
    found = {
        str(identifier): planned.config
        for (kind, identifier), planned in plan.components.items()
        if kind is Kind.CONNECTOR and isinstance(planned.config, Config) and wanted in {"", str(identifier)}
    }
    if not found:
        named = f" `{wanted}`" if wanted else ""
        raise AgentError(f"this configuration has no connector{named} of the type `routing` in its pipelines")
    if len(found) > 1:
        raise AgentError(f"choose one with --connector: {', '.join(found)}")
    return next(iter(found.values()))


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name.strip().lower(), value


def _lines(explained: Explained) -> Iterator[str]:
    """Yield the lines about one span."""
    name = explained.item.name.decode(errors="replace")  # type: ignore[union-attr] # only traces are read
    yield f"{name}  ->  {_shown(explained.targets)}"
    for result in explained.rules:
        facts = ", ".join(f"{path} is {_value(value)}" for path, value in result.facts)
        yield f"  {result.rule} {'matches' if result.matches else 'does not match'}: {result.condition}"
        if facts:
            yield f"      {facts}"
    if not explained.rules or not explained.rules[-1].matches:
        yield "  no rule takes it: the default pipelines get it"
    if explained.joined:
        yield "  it stays with its trace: a rule that matches another span of the trace decides"


def _as_json(explained: Explained) -> dict[str, object]:
    return {
        "name": explained.item.name.decode(errors="replace"),  # type: ignore[union-attr] # only traces are read
        "pipelines": explained.targets,
        "stays_with_trace": explained.joined,
        "rules": [
            {
                "rule": result.rule,
                "condition": result.condition,
                "matches": result.matches,
                "facts": {path: value.hex() if isinstance(value, bytes) else value for path, value in result.facts},
            }
            for result in explained.rules
        ],
    }


def _shown(targets: Targets) -> str:
    return ", ".join(targets) or "no pipeline: it is filtered out"


def _value(value: object) -> str:
    return "missing" if value is None else json.dumps(value.hex() if isinstance(value, bytes) else value)
