"""`otelwp-agent journal`: verify a journal on disk."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.key_options import journal_keys, key_option
from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.errors import AgentError
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.verify import Verification


@click.group()
def journal() -> None:
    """Verify a journal on disk, and make the key that encrypts it."""


@journal.command()
@partial(config_options, required=False)
@click.option("--directory", metavar="DIRECTORY", help="Journal to verify; not needed with --config.")
@key_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify(
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    directory: str | None,
    key_files: Sequence[str],
    as_json: bool,
) -> int:
    """Check all checksums, the order of entries, the sums and the high-water mark, and count waiting requests.

    Nothing is changed. The journal can be checked while an agent uses it; an entry that is being written may then
    look unfinished. Exit status: 0 sound, 1 damaged or incomplete (each problem is listed), 2 wrong usage.
    """
    service = load_plan(config, overrides).service if config else None
    if directory is None and service is not None and service.journal is not None:
        directory = service.journal.directory
    if directory is None:
        message = "give the journal: --directory DIRECTORY, or --config FILE of an agent with a journal"
        raise click.UsageError(message)
    found = _found(Path(directory), journal_keys(key_files, service))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    return 1 if found.problems else 0


@journal.command("new-key")
@click.argument("file", metavar="FILE")
def new_key(*, file: str) -> None:
    """Write a random key to FILE (mode 0600), for `encryption.key_file` of `service.journal`.

    An existing file is not replaced: what is encrypted with its key could not be read any more. Keep a copy of the key
    apart from the disk of the journal.
    """
    from otelwp_agent.at_rest.keys import LocalKey  # noqa: PLC0415 - not for `--help`

    key = LocalKey.new()
    try:
        fd = files.open_file(Path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            files.write_all(fd, f"{key.text}\n".encode())
            os.fsync(fd)
        finally:
            files.close(fd)
    except FileExistsError as error:
        raise AgentError(f"{file} exists: what it encrypts needs it. Give another file") from error
    except OSError as error:
        raise AgentError(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"key {key.key_id} written to {file}")


def _found(directory: Path, keys: StorageKeys | None) -> Verification:
    from otelwp_agent.journal.verify import verify_directory  # noqa: PLC0415 - not for `--help`

    try:
        found = verify_directory(directory, keys)
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
    for key, segments in sorted(found.keys.items()):
        if key or len(found.keys) > 1:
            click.echo(f"key       {key or 'none'}: {segments} segment{'s' * (segments != 1)}")
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
