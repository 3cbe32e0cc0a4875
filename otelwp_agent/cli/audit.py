"""`otelwp-agent audit`: prove that nothing was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.asking import NobodyAnswersError, ask
from otelwp_agent.cli.options import agent_options, load_plan
from otelwp_agent.errors import AgentError
from otelwp_agent.model.ledger_report import FIGURES, KINDS, Line, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGNS = ("", " =", " +", " +", " +", " +")
"""What stands before each figure: the table reads as the equation."""


@click.command()
@agent_options
@click.option(
    "--journal",
    metavar="DIRECTORY",
    help="Read this journal, of an agent that does not run, where no configuration tells.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def audit(
    *, config: Sequence[str], overrides: Sequence[str], socket: str | None, journal: str | None, as_json: bool
) -> int:
    """Prove that nothing was lost: print every ledger, and whether it balances.

    accepted = delivered + sampled_out + filtered + dropped + in_flight must hold for each pipeline, receiver, tenant
    and exporter. The running agent is asked over its control socket; if none runs, the journal is read. Exit status:
    0 it all balances, 1 it does not (each line that is wrong is named), 2 wrong usage.
    """
    report = _report(config, overrides, socket, journal)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    return 0 if report.balances else 1


def _report(config: Sequence[str], overrides: Sequence[str], socket: str | None, journal: str | None) -> Report:
    if not (config or socket or journal):
        message = "say what to look at: --config FILE (the agent's), --socket PATH, or --journal DIRECTORY"
        raise click.UsageError(message)
    if config:
        service = load_plan(config, overrides).service
        socket = socket or (service.control_path if journal is None else None)
        journal = journal or (service.journal.directory if service.journal is not None else None)
        if socket is None and journal is None:
            raise AgentError(
                "with this configuration there is nothing to ask: set `service.control_socket` or `service.journal`"
            )
    if socket is None:
        return _of_journal(journal or "")
    try:
        return Report.from_json(ask(socket, "GET", "/audit"))
    except NobodyAnswersError as error:
        if journal is None:
            raise AgentError(f"{error}. Start it, or give the --journal of one that does not run") from error
        return _of_journal(journal)
    except ValueError as error:
        raise AgentError(f"what answers at {socket} is another version of this agent: {error}") from error


def _of_journal(directory: str) -> Report:
    from otelwp_agent.journal.audit import audit_directory  # noqa: PLC0415 - not for who asks an agent

    try:
        if next(Path(directory).glob("*.journal"), None) is None:
            raise AgentError(
                f"there is no journal in {directory}: no agent has run with it, or it is another directory"
            )
        return audit_directory(Path(directory))
    except OSError as error:
        raise AgentError(f"cannot read the journal {directory}: {error.strerror}") from error


def _print(report: Report) -> None:
    """Print tables that read as equations, then what is wrong."""
    if report.source:
        click.echo(f"{report.source}\n")
    names = max([len(line.name or "(none)") for line in report.lines], default=0)
    widths = [max([len(figure), *(len(str(getattr(line, figure))) for line in report.lines)]) for figure in FIGURES]
    for kind in KINDS:
        lines = [line for line in report.lines if line.kind == kind]
        if not lines:
            continue
        names = max(names, len(kind))
        head = "".join(_cell(*cell) for cell in zip(_SIGNS, FIGURES, widths, strict=True))
        click.echo(f"{kind.ljust(names)}  {head}")
        for line in lines:
            click.echo(_row(line, names, widths))
        click.echo("")
    problems = report.all_problems()
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}: the ledgers do not balance", err=True)
    else:
        click.echo("every ledger balances" if report.lines else "there is no ledger yet: nothing was accepted")


def _row(line: Line, names: int, widths: Sequence[int]) -> str:
    cells = "".join(
        _cell(sign, str(getattr(line, figure)), width)
        for sign, figure, width in zip(_SIGNS, FIGURES, widths, strict=True)
    )
    reasons = ", ".join(f"{reason} {items}" for reason, items in sorted(line.reasons.items()))
    wrong = f"  WRONG BY {line.balance}" if line.balance else ""
    return f"{(line.name or '(none)').ljust(names)}  {cells}{f'  ({reasons})' if reasons else ''}{wrong}"


def _cell(sign: str, text: str, width: int) -> str:
    return f"{sign} {text.rjust(width)}" if sign else text.rjust(width)
