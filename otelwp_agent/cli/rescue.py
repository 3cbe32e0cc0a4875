"""`otelwp-agent rescue`: recover dropped traces from the flight recorder."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from otelwp_agent.cli.asking import NoAnswerError, ask
from otelwp_agent.cli.options import agent_options
from otelwp_agent.cli.sampling import agent_socket, select_samplers
from otelwp_agent.config.types import parse_duration
from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT = 120.0
"""Seconds to wait for the answer: the agent may have to read the whole recording."""


@click.command()
@agent_options
@click.option("--trace-id", metavar="ID", help="Recover this trace: 32 hexadecimal digits.")
@click.option(
    "--since",
    metavar="TIME",
    help="Recover traces dropped since then: `15m` ago, or `2026-11-20T14:30:00Z` (UTC if no zone is given).",
)
@click.option(
    "--where",
    multiple=True,
    metavar="ATTRIBUTE=VALUE",
    help="Only traces in which a span or its resource has this attribute; `*` in the value matches anything. "
    "Repeatable: all must match.",
)
@click.option("--pipeline", default="", metavar="ID", help="Only from this pipeline.")
@click.option("--processor", default="", metavar="ID", help="Only from this processor.")
def rescue(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    socket: str | None,
    trace_id: str | None,
    since: str | None,
    where: Sequence[str],
    pipeline: str,
    processor: str,
) -> int:
    """Recover traces that adaptive sampling has dropped, if they are still in its flight recorder.

    They pass through the rest of the pipeline like kept traces, marked with `sampling.reason: rescued`. Exits 1 if no
    trace matches.
    """
    wanted = _wanted(trace_id, since, where)
    path = agent_socket(config, overrides, socket)
    names = {name: value for name, value in (("pipeline", pipeline), ("processor", processor)) if value}
    try:
        done = ask(path, "POST", "/sampling/rescue", {**wanted, **names}, WAIT)
    except NoAnswerError as error:
        raise AgentError(f"{error}. Only a running agent can rescue traces: start it first") from error
    select_samplers(done["samplers"], pipeline, processor)
    if not done["rescued"]:
        raise AgentError("no flight recorder is enabled: set `flight_recorder: {enabled: true}` in adaptive_sampling")
    spans = 0
    for each in done["rescued"]:
        spans += each["spans"]
        if each["spans"] or len(done["rescued"]) > 1:
            click.echo(f"{each['processor']} in {each['pipeline']}: {each['spans']:,} spans recovered")
    if not spans:
        click.echo("no recorded trace matches: it is too old, was kept, or was never received", err=True)
    return 0 if spans else 1


def _wanted(trace_id: str | None, since: str | None, where: Sequence[str]) -> dict[str, Any]:
    """Return the options as the request to the agent; raise `UsageError` if they are invalid."""
    if trace_id is None and since is None and not where:
        raise click.UsageError("give what to recover: --trace-id, --since or --where")
    wanted: dict[str, Any] = {}
    if trace_id is not None:
        if not re.fullmatch(r"[0-9A-Fa-f]{32}", trace_id):
            message = f"--trace-id: {trace_id!r} is not a trace id: give 32 hexadecimal digits"
            raise click.UsageError(message)
        wanted["trace_id"] = trace_id
    if since is not None:
        wanted["since"] = _time(since)
    if where:
        wanted["where"] = dict(_attribute(each) for each in where)
    return wanted


def _time(text: str) -> float:
    """Parse a duration before now or a date; return it as seconds since 1970."""
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--since: {text!r} is not a time: write `15m` (ago) or `2026-11-20T14:30:00Z`"
        raise click.UsageError(message) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        message = f"--where: {text!r} is not ATTRIBUTE=VALUE, like http.route=/cart"
        raise click.UsageError(message)
    from otelwp_agent.processors.adaptive_sampling.config import SPAN_NAME, checked_attribute  # noqa: PLC0415

    name = name.strip()
    try:
        checked_attribute(name)
    except ValueError as error:
        message = f"--where: {error}"
        raise click.UsageError(message) from error
    if name == SPAN_NAME:
        message = f"--where: {SPAN_NAME} is not an attribute: give the name of one"
        raise click.UsageError(message)
    return name, value
