"""`otelwp-agent dead-letter`: what a destination has refused for good."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otelwp_agent.cli.asking import PATIENCE, NobodyAnswersError, ask
from otelwp_agent.cli.options import agent_options, load_plan
from otelwp_agent.config.types import format_duration
from otelwp_agent.dead_letters.file import LetterFile, LockedError, Reading, read_bodies, read_letters
from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.dead_letters.records import Letter

F = TypeVar("F", bound="Callable[..., Any]")

WAIT = 30.0
"""Seconds that `resend` waits for the outcome."""

_COLUMNS = ("id", "when", "exporter", "signal", "items", "reason", "error")
_LONGEST_CELL = 100


@dataclass(frozen=True, slots=True)
class Target:
    """Whose letters: the file and the control socket, as far as the options tell."""

    path: Path | None
    socket: str | None
    given: bool
    """Whether the path was given as such, and so must be there."""

    @classmethod
    def of(cls, config: Sequence[str], overrides: Sequence[str], path: str | None, socket: str | None) -> Target:
        """Work out what the options mean; raise `UsageError`, `ConfigError` or `AgentError`."""
        if not (config or path or socket):
            message = "say whose letters: --config FILE (the agent's), --path FILE (of the letters) or --socket PATH"
            raise click.UsageError(message)
        given = path is not None
        if config:
            service = load_plan(config, overrides).service
            path, socket = path or service.dead_letter_path, socket or service.control_path
            if path is None:
                raise AgentError(
                    "with this configuration no dead letters are kept: set `service.journal` or "
                    "`service.dead_letter.path`"
                )
        return cls(Path(path) if path else None, socket, given)

    def file(self) -> Path:
        """Return where the letters are; the agent is asked if no option tells."""
        if self.path is not None:
            return self.path
        assert self.socket is not None  # noqa: S101 - see `of`
        return Path(ask(self.socket, "GET", "/dead-letters")["path"])

    def read(self) -> Reading:
        """Return what the file holds: nothing, if there is none yet. Raises `AgentError` that says what to do."""
        path = self.file()
        try:
            return read_letters(path)
        except FileNotFoundError as error:
            if self.given:
                raise AgentError(f"there is no file {path}") from error
            return Reading()  # the agent has not run yet
        except OSError as error:
            raise AgentError(f"cannot read {path}: {error.strerror}") from error


def _target_options(command: F) -> F:
    command = click.option("--path", metavar="FILE", help="The file of the letters, where no configuration tells it.")(
        command
    )
    return agent_options(command)


_exporter_option = click.option("--exporter", default="", metavar="ID", help="Only the letters of this exporter.")
_all_option = click.option("--all", "everything", is_flag=True, help="All letters (of --exporter).")


@click.group("dead-letter")
def dead_letter() -> None:
    """List, show, resend and purge what a destination has refused for good.

    An exporter that is told "never send me this again" keeps the batch in a file, with the reason: see the sections
    `journal` and `dead_letter` of `service`. Listing and showing read that file, whether an agent runs or not.
    """


@dead_letter.command("list")
@_target_options
@_exporter_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_letters(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    path: str | None,
    socket: str | None,
    exporter: str,
    as_json: bool,
) -> None:
    """List the letters, the oldest first."""
    reading = Target.of(config, overrides, path, socket).read()
    letters = [letter for letter in reading.letters if exporter in {"", letter.exporter}]
    _warn_of_damage(reading)
    if as_json:
        click.echo(json.dumps([_described(letter) for letter in letters], indent=2, ensure_ascii=False))
        return
    if not letters:
        click.echo("no dead letters", err=True)
        return
    rows = [_COLUMNS, *map(_row, letters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


@dead_letter.command()
@_target_options
@click.argument("identifier", metavar="ID")
@click.option(
    "--raw", is_flag=True, help="Write the request as it was refused (OTLP, protobuf) to the standard output."
)
def show(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    path: str | None,
    socket: str | None,
    identifier: str,
    raw: bool,
) -> None:
    """Show one letter and the telemetry in it, as JSON."""
    target = Target.of(config, overrides, path, socket)
    _warn_of_damage(target.read())
    for letter, body in read_bodies(target.file(), {identifier}):
        if raw:
            sys.stdout.buffer.write(body)
            return
        click.echo(json.dumps({**_described(letter), "request": _decoded(letter, body)}, indent=2, ensure_ascii=False))
        return
    raise AgentError(_no_such([identifier]))


@dead_letter.command()
@agent_options
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_all_option
@_exporter_option
@click.option("--to", default="", metavar="ID", help="Another exporter to send them through than their own.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the outcome.",
)
def resend(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    socket: str | None,
    ids: Sequence[str],
    everything: bool,
    exporter: str,
    to: str,
    wait: float,
) -> int:
    """Have the running agent send letters once more.

    A letter goes when it was delivered, and stays, with the new reason, when it is refused again. Exits 1 unless all
    were delivered.
    """
    target = Target.of(config, overrides, None, socket)
    choice = _choice(ids, exporter, everything=everything)
    if target.socket is None:
        raise AgentError("only a running agent can resend: give its --socket, or a --config with a control socket")
    try:
        done = ask(target.socket, "POST", "/dead-letters/resend", {**choice, "to": to, "wait": wait}, wait + PATIENCE)
    except NobodyAnswersError as error:
        raise AgentError(f"{error}. Only a running agent can resend: start it first") from error
    return _report(done, wait)


@dead_letter.command()
@_target_options
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_all_option
@_exporter_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    path: str | None,
    socket: str | None,
    ids: Sequence[str],
    everything: bool,
    exporter: str,
    yes: bool,
) -> int:
    """Remove letters for ever."""
    target = Target.of(config, overrides, path, socket)
    choice = _choice(ids, exporter, everything=everything)
    chosen = [letter for letter in target.read().letters if _takes(choice, letter)]
    unknown = sorted(set(ids) - {letter.id for letter in chosen})
    if unknown:
        raise AgentError(_no_such(unknown))
    if not chosen:
        click.echo("no dead letters to purge", err=True)
        return 0
    items = sum(letter.items for letter in chosen)
    if not yes:
        what = f"Purge {_count(len(chosen), 'letter')} with {_count(items, 'item')}? Nobody can bring them back."
        click.confirm(what, abort=True, err=True)
    purged = _purge(target, {"ids": [letter.id for letter in chosen]})
    click.echo(f"purged {_count(purged, 'letter')}")
    return 0


def _purge(target: Target, choice: dict[str, Any]) -> int:
    """Remove letters: through the agent that has the file open, or by ourselves. Return how many."""
    path, ids = target.file(), frozenset(choice["ids"])
    file = LetterFile(path, 0)
    try:
        file.open()
    except LockedError as error:
        if target.socket is None:
            raise AgentError(f"{error} Give its --socket, so that it can be asked to purge") from error
        return len(ask(target.socket, "POST", "/dead-letters/purge", choice)["purged"])
    except OSError as error:
        raise AgentError(f"cannot write {path}: {error.strerror}") from error
    try:
        return len(file.rewrite(lambda letter: letter.id in ids))
    except OSError as error:
        raise AgentError(f"cannot rewrite {path}: {error.strerror}") from error
    finally:
        file.close()


def _report(done: dict[str, Any], wait: float) -> int:
    """Say what became of letters that were resent; return the exit status."""
    if done["unknown"]:
        click.echo(f"error: {_no_such(done['unknown'])}", err=True)
    for name, letters in done["without_exporter"].items():
        click.echo(
            f"error: {_count(letters, 'letter')} of {name}, which does not run for their signal: "
            "give another exporter with --to",
            err=True,
        )
    parts = [f"{_count(done['delivered'], 'letter')} delivered"]
    if done["refused"]:
        parts.append(f"{done['refused']} refused again (`dead-letter list` has the reasons)")
    if done["kept"]:
        parts.append(f"{done['kept']} not delivered (the agent's log has the reason)")
    if done["pending"]:
        parts.append(f"{done['pending']} not done within {format_duration(wait)}: the agent goes on with them")
    click.echo(", ".join(parts))
    return 0 if done["delivered"] == done["letters"] and not done["unknown"] else 1


def _choice(ids: Sequence[str], exporter: str, *, everything: bool) -> dict[str, Any]:
    """Return which letters the options mean, as the agent is told; raise `UsageError`."""
    if ids and (everything or exporter):
        message = "give ids, or --all or --exporter: not both"
        raise click.UsageError(message)
    if ids:
        return {"ids": list(ids)}
    if not (everything or exporter):
        message = "say which letters: their ids (see `dead-letter list`), --exporter ID, or --all"
        raise click.UsageError(message)
    return {"all": True, "exporter": exporter}


def _takes(choice: dict[str, Any], letter: Letter) -> bool:
    if "ids" in choice:
        return letter.id in choice["ids"]
    return choice["exporter"] in {"", letter.exporter}


def _described(letter: Letter) -> dict[str, Any]:
    """Return what is known of a letter, for programs: the time as RFC 3339 has it."""
    return {**letter.to_json(), "time": _when(letter).isoformat(timespec="milliseconds")}


def _decoded(letter: Letter, body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the telemetry in a letter as OTLP/JSON, or what it is instead."""
    if letter.encodings:
        return f"{len(body)} bytes, encoded with {', '.join(letter.encodings)}: see --raw"
    from otelwp_agent.codecs import otlp_json  # noqa: PLC0415 - its tables are made for who writes JSON

    try:
        return json.loads(otlp_json.encode(letter.signal, body))
    except AgentError as error:
        return f"{len(body)} bytes that are no OTLP ({error}): see --raw"


def _row(letter: Letter) -> tuple[str, ...]:
    when = _when(letter).strftime("%Y-%m-%d %H:%M:%S")
    signal = letter.signal.value
    return (letter.id, when, letter.exporter, signal, str(letter.items), letter.reason, _one_line(letter.error))


def _when(letter: Letter) -> datetime:
    return datetime.fromtimestamp(letter.time).astimezone()


def _one_line(text: str) -> str:
    """Return text that another side wrote, fit for a terminal."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_CELL else f"{line[: _LONGEST_CELL - 1]}…"


def _warn_of_damage(reading: Reading) -> None:
    if reading.damaged:
        places = _count(reading.damaged, "place")
        click.echo(f"warning: {places} of the file ({reading.damaged_bytes} bytes) cannot be read", err=True)


def _no_such(ids: Sequence[str]) -> str:
    return f"there is no letter {', '.join(ids)}: see `dead-letter list`"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
