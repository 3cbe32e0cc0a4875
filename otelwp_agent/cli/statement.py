"""`otelwp-agent statement`: verify statements of delivery, and make the key that signs them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otelwp_agent.errors import AgentError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.statements.chain import Chain, ChainReport


@click.group()
def statement() -> None:
    """Verify statements of delivery, and make the key that signs them."""


@statement.command()
@click.argument("names", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="KEY",
    help="Public key that signs the statements, or a file with a key per line. Repeatable.",
)
@click.option(
    "--first",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="NUMBER",
    help="First statement that each tenant must have.",
)
@click.option("--last", type=click.IntRange(1), metavar="NUMBER", help="Last statement that each tenant must have.")
@click.option("--until", metavar="TIME", help="Time that the statements must reach: `2026-11-30T14:00:00Z`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify(  # noqa: PLR0913 - one argument for each option
    *, names: Sequence[str], keys: Sequence[str], first: int, last: int | None, until: str | None, as_json: bool
) -> int:
    """Check the signature and the figures of each statement, and that none is missing, repeated or out of order.

    A FILE has one statement in each line, as the admin API returns them in `text`. Nothing is asked of an agent. That
    statements are missing at the end can be noticed with --last or --until only. Exit status: 0 all are valid,
    1 problems (each is listed), 2 wrong usage.
    """
    from otelwp_agent.licensing.public_keys import load_keys  # noqa: PLC0415 - not for `--help`
    from otelwp_agent.statements.chain import statements_in, verify_chains  # noqa: PLC0415 - the same

    try:
        signers = load_keys(keys, ())
    except ValueError as error:
        raise AgentError(f"--key: {error}") from error
    texts = [each for name in names for each in statements_in(_content(name), name)]
    report = verify_chains(texts, signers, first=first, last=last, until=None if until is None else _time(until))
    if as_json:
        click.echo(json.dumps(_to_json(report), indent=2, ensure_ascii=False))
    else:
        _print(report)
    return 1 if report.problems else 0


@statement.command("new-key")
@click.argument("file", metavar="FILE")
def new_key(*, file: str) -> None:
    """Write a private key to FILE (mode 0600), for `key_file` of `delivery_statements`, and print its public key.

    Give the public key to the tenants: `statement verify --key` needs it. An existing file is not replaced.
    """
    from otelwp_agent.licensing.signatures import generate_key, private_pem, public_text  # noqa: PLC0415 - see above

    key = generate_key()
    try:
        fd = files.open_file(Path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            files.write_all(fd, private_pem(key))
            os.fsync(fd)
        finally:
            files.close(fd)
    except FileExistsError as error:
        raise AgentError(f"{file} exists: statements may be signed with it. Give another file") from error
    except OSError as error:
        raise AgentError(f"cannot write {file}: {error.strerror}") from error
    click.echo(public_text(key))


def _content(name: str) -> str:
    try:
        return Path(name).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise AgentError(f"cannot read {name}: {error.strerror}") from error


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--until: {text!r} is not a time: write `2026-11-30T14:00:00Z`"
        raise click.UsageError(message) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _to_json(report: ChainReport) -> dict[str, Any]:
    chains = [
        {
            "agent": chain.agent,
            "tenant": chain.tenant,
            "statements": [each.statement.to_claims() for each in chain.statements],
        }
        for chain in report.chains
    ]
    return {"valid": not report.problems, "chains": chains, "problems": report.problems}


def _print(report: ChainReport) -> None:
    for chain in report.chains:
        numbers = chain.numbers
        click.echo(f"tenant {chain.tenant}, agent {chain.agent}: statements {min(numbers)} to {max(numbers)}")
        click.echo(f"  to {datetime.fromtimestamp(chain.last.end, UTC).isoformat(timespec='seconds')}")
        for line in _sums(chain):
            click.echo(f"  {line}")
    for problem in report.problems:
        click.echo(f"problem: {problem}", err=True)
    count = len(report.problems)
    click.echo(f"{count} problem{'s' * (count != 1)}" if count else "all statements are valid")


def _sums(chain: Chain) -> Sequence[str]:
    """Return lines with the sums of each pipeline and exporter over all statements."""
    lines = []
    statements = [each.statement for each in chain.statements]
    for name in sorted({name for each in statements for name in each.pipelines}):
        figures = [each.pipelines[name] for each in statements if name in each.pipelines]
        sums = {key: sum(getattr(one, key) for one in figures) for key in ("accepted", "delivered", "sampled_out")}
        sums["filtered"] = sum(one.filtered for one in figures)
        sums["dropped"] = sum(sum(one.dropped.values()) for one in figures)
        sums["written_off"] = sum(one.written_off for one in figures)
        sums["in_flight"] = chain.last.pipelines[name].closing if name in chain.last.pipelines else 0
        lines.append(f"pipeline {name}: {', '.join(f'{key} {items}' for key, items in sums.items())}")
    for name in sorted({name for each in statements for name in each.exporters}):
        exporters = [each.exporters[name] for each in statements if name in each.exporters]
        delivered, dropped = sum(one.delivered for one in exporters), sum(one.dropped for one in exporters)
        lines.append(f"exporter {name}: delivered {delivered}, dropped {dropped}")
    lines += [
        f"interrupted from {one.begin} to {one.end}, {'sums continued' if one.pipelines else 'sums incomplete'}"
        for each in statements
        for one in each.interruptions
    ]
    return lines
