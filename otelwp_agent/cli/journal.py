"""`otelwp-agent journal`: verify a journal on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from otelwp_agent.journal.verify import Verification


@click.group()
def journal() -> None:
    """Verify a journal on disk."""


@journal.command()
@click.option("--directory", metavar="DIRECTORY", required=True, help="Journal to verify: `service.journal.directory`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify(*, directory: str, as_json: bool) -> int:
    """Check all checksums, the order of entries, the sums and the high-water mark, and count waiting requests.

    Nothing is changed. The journal can be checked while an agent uses it; an entry that is being written may then
    look unfinished. Exit status: 0 sound, 1 damaged or incomplete (each problem is listed), 2 wrong usage.
    """
    found = _found(Path(directory))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    return 1 if found.problems else 0


def _found(directory: Path) -> Verification:
    from otelwp_agent.journal.verify import verify_directory  # noqa: PLC0415 - not for `--help`

    try:
        found = verify_directory(directory)
    except OSError as error:
        raise AgentError(f"cannot read the journal {directory}: {error.strerror or error}") from error
    if not found.segments and found.marked is None:
        raise AgentError(f"there is no journal in {directory}: check `service.journal.directory`; no agent has used it")
    return found


def _print(found: Verification) -> None:
    click.echo(f"journal   {found.directory}")
    if found.in_use:
        click.echo("note      an agent uses it: an entry that is being written may look unfinished")
    click.echo(f"segments  {found.segments}, {found.bytes} bytes")
    marked = f"mark at {found.marked}" if found.marked is not None else "no mark"
    click.echo(f"entries   {found.entries}, the last is number {found.last}, {marked}")
    if found.torn_bytes:
        click.echo(f"torn      {found.torn_bytes} bytes of an incomplete last entry, which was not acknowledged")
    for pipeline, waiting in sorted(found.waiting.items()):
        done = ", ".join(f"{branch} is done with {entries}" for branch, entries in sorted(waiting.done.items()))
        done = f" ({done})" if done else ""
        click.echo(f"waiting   {pipeline}: {waiting.entries} requests, {waiting.items} items{done}")
    if not found.waiting:
        click.echo("waiting   nothing")
    for problem in found.problems:
        click.echo(f"problem   {problem}", err=True)
    count = len(found.problems)
    click.echo(f"result    {f'{count} problem' + 's' * (count != 1) if count else 'sound'}")
