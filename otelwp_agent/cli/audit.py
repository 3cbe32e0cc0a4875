"""`otelwp-agent audit`: check that all ledgers balance, so that no item was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.asking import NoAnswerError, ask
from otelwp_agent.cli.key_options import journal_keys, key_option
from otelwp_agent.cli.options import agent_options, load_plan
from otelwp_agent.errors import AgentError
from otelwp_agent.model.ledger_report import FIGURES, KINDS, LedgerLine, Report
from otelwp_agent.model.receipt import DEAD_LETTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.at_rest.keys import StorageKeys

_SIGNS = ("", " =", " +", " +", " +", " +")
"""Sign before each figure, so that a row of the table reads as an equation."""


class _AuditGroup(click.Group):
    """Loads `log` when it is called, because it needs the packages of the control store."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands."""
        return ["log"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load and return the command, or return `None` if there is none of that name."""
        if cmd_name != "log":
            return None
        from otelwp_agent.cli.audit_log import log  # noqa: PLC0415 - see the class

        return log

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([("log", "List and verify the changes of the control store.")])


@click.command(cls=_AuditGroup, invoke_without_command=True)
@agent_options
@click.option(
    "--journal",
    metavar="DIRECTORY",
    help="Journal of an agent that is not running; not needed with --config.",
)
@key_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def audit(  # noqa: PLR0913 - one argument for each option
    ctx: click.Context,
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    socket: str | None,
    journal: str | None,
    key_files: Sequence[str],
    as_json: bool,
) -> int:
    """Prove that nothing was lost: print every ledger, and whether it balances.

    accepted = delivered + sampled_out + filtered + dropped + in_flight must hold for each pipeline, receiver,
    tenant and exporter. Dropped items that are kept as dead letters are named apart from those that are lost. The
    data comes from the running agent, over its control socket; if no agent runs, from the journal.
    Exit status: 0 all ledgers balance, 1 some do not (each is named), 2 wrong usage.

    `audit log` lists and verifies the audit log of the control store instead.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    report = _report(config, overrides, socket, journal, key_files)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    return 0 if report.balances else 1


def _report(
    config: Sequence[str],
    overrides: Sequence[str],
    socket: str | None,
    journal: str | None,
    key_files: Sequence[str],
) -> Report:
    if not (config or socket or journal):
        message = "give what to audit: --config FILE (the agent's), --socket PATH, or --journal DIRECTORY"
        raise click.UsageError(message)
    service = None
    if config:
        service = load_plan(config, overrides).service
        socket = socket or (service.control_path if journal is None else None)
        journal = journal or (service.journal.directory if service.journal is not None else None)
        if socket is None and journal is None:
            raise AgentError(
                "this configuration has neither control socket nor journal: set `service.control_socket` or "
                "`service.journal`"
            )
    if socket is None:
        return _of_journal(journal or "", journal_keys(key_files, service))
    try:
        return Report.from_json(ask(socket, "GET", "/audit"))
    except NoAnswerError as error:
        if journal is None:
            raise AgentError(f"{error}. Start the agent, or give its --journal if it is not running") from error
        return _of_journal(journal, journal_keys(key_files, service))
    except ValueError as error:
        raise AgentError(f"the agent at {socket} has another version, whose answer cannot be read: {error}") from error


def _of_journal(directory: str, keys: StorageKeys | None) -> Report:
    from otelwp_agent.journal.audit import audit_directory  # noqa: PLC0415 - not needed with a running agent

    try:
        if next(Path(directory).glob("*.journal"), None) is None:
            raise AgentError(
                f"there is no journal in {directory}: check the directory, and that an agent has run with it"
            )
        return audit_directory(Path(directory), keys)
    except OSError as error:
        raise AgentError(f"cannot read the journal {directory}: {error.strerror}") from error


def _print(report: Report) -> None:
    """Print one table of ledgers for each kind, then the problems."""
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
        click.echo("every ledger balances" if report.lines else "there are no ledgers yet: nothing was accepted")


def _row(line: LedgerLine, names: int, widths: Sequence[int]) -> str:
    cells = "".join(
        _cell(sign, str(getattr(line, figure)), width)
        for sign, figure, width in zip(_SIGNS, FIGURES, widths, strict=True)
    )
    reasons = "; ".join(part for part in (_reasons("lost", line), _reasons("kept as dead letters", line)) if part)
    wrong = f"  WRONG BY {line.balance}" if line.balance else ""
    return f"{(line.name or '(none)').ljust(names)}  {cells}{f'  ({reasons})' if reasons else ''}{wrong}"


def _reasons(fate: str, line: LedgerLine) -> str:
    """Return the reasons of the dropped items that are lost, or of those that are kept as dead letters."""
    kept = fate != "lost"
    parts = [
        f"{reason.removeprefix(DEAD_LETTER)} {items}"
        for reason, items in sorted(line.reasons.items())
        if reason.startswith(DEAD_LETTER) == kept
    ]
    return f"{fate}: {', '.join(parts)}" if parts else ""


def _cell(sign: str, text: str, width: int) -> str:
    return f"{sign} {text.rjust(width)}" if sign else text.rjust(width)
