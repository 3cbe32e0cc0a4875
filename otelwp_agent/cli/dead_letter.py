"""`otelwp-agent dead-letter`: list, show, resend and purge requests that a backend refused permanently."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otelwp_agent.cli.asking import PATIENCE, NoAnswerError, ask
from otelwp_agent.cli.key_options import key_option, letter_keys
from otelwp_agent.cli.options import agent_options, load_plan
from otelwp_agent.config.types import format_duration
from otelwp_agent.dead_letters.file import LetterFile, LockedError, Reading, read_bodies, read_letters
from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.dead_letters.records import Letter

F = TypeVar("F", bound="Callable[..., Any]")

WAIT = 30.0
"""Seconds that `resend` waits for the outcome by default."""

_COLUMNS = ("id", "when", "exporter", "signal", "items", "reason", "error")
_LONGEST_CELL = 100


@dataclass(frozen=True, slots=True)
class LetterStore:
    """The dead-letter file and the control socket that the options name; `None` for what they do not name."""

    path: Path | None
    socket: str | None
    given: bool
    """Whether the path was given with `--path`, so that the file must exist."""
    keys: StorageKeys | None = None
    """Keys of encrypted letters."""

    @classmethod
    def of(
        cls,
        config: Sequence[str],
        overrides: Sequence[str],
        path: str | None,
        socket: str | None,
        key_files: Sequence[str] = (),
    ) -> LetterStore:
        """Make a target from the options; raise `UsageError`, `ConfigError` or `AgentError` if they name none."""
        if not (config or path or socket):
            message = "give the agent's --config FILE or --socket PATH, or --path FILE of its dead letters"
            raise click.UsageError(message)
        given, service = path is not None, None
        if config:
            service = load_plan(config, overrides).service
            path, socket = path or service.dead_letter_path, socket or service.control_path
            if path is None:
                raise AgentError(
                    "this configuration keeps no dead letters: set `service.journal` or `service.dead_letter.path`"
                )
        return cls(Path(path) if path else None, socket, given, letter_keys(key_files, service))

    def file(self) -> Path:
        """Return the path of the dead-letter file; request it from the agent if no option gives it."""
        if self.path is not None:
            return self.path
        assert self.socket is not None  # noqa: S101 - see `of`
        return Path(ask(self.socket, "GET", "/dead-letters")["path"])

    def read(self) -> Reading:
        """Return the content of the file, empty if it does not exist yet; raise `AgentError` if it cannot be read."""
        path = self.file()
        try:
            return read_letters(path)
        except FileNotFoundError as error:
            if self.given:
                raise AgentError(f"file {path} does not exist") from error
            return Reading()  # the agent has not run yet
        except OSError as error:
            raise AgentError(f"cannot read {path}: {error.strerror}") from error

    def opened(self, letters: list[Letter]) -> list[Letter]:
        """Return the letters with the backends' messages of those that are encrypted, if there is a key."""
        sealed = {letter.id for letter in letters if letter.sealed is not None}
        if not sealed:
            return letters
        if self.keys is None:
            return [replace(letter, error="(encrypted)") if letter.id in sealed else letter for letter in letters]
        found = {letter.id: letter for letter, _ in read_bodies(self.file(), sealed, self.keys)}
        return [found.get(letter.id, letter) for letter in letters]


def _target_options(command: F) -> F:
    command = click.option("--path", metavar="FILE", help="The dead-letter file; not needed with --config.")(command)
    return agent_options(command)


_exporter_option = click.option("--exporter", default="", metavar="ID", help="Only the letters of this exporter.")
_all_option = click.option("--all", "everything", is_flag=True, help="All letters (of --exporter).")


@click.group("dead-letter")
def dead_letter() -> None:
    """List, show, resend and purge requests that a backend has refused permanently.

    An exporter keeps a batch that its backend refuses permanently in a file, with the reason: see the sections
    `journal` and `dead_letter` of `service`. `list` and `show` read that file, whether an agent runs or not.
    """


@dead_letter.command("list")
@_target_options
@key_option
@_exporter_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_letters(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    path: str | None,
    socket: str | None,
    key_files: Sequence[str],
    exporter: str,
    as_json: bool,
) -> None:
    """List the letters, oldest first."""
    store = LetterStore.of(config, overrides, path, socket, key_files)
    reading = store.read()
    letters = store.opened([letter for letter in reading.letters if exporter in {"", letter.exporter}])
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
@key_option
@click.argument("identifier", metavar="ID")
@click.option(
    "--raw", is_flag=True, help="Write the refused request unchanged (OTLP, protobuf) to the standard output."
)
def show(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    path: str | None,
    socket: str | None,
    key_files: Sequence[str],
    identifier: str,
    raw: bool,
) -> None:
    """Show one letter and the telemetry in it, as JSON."""
    target = LetterStore.of(config, overrides, path, socket, key_files)
    _warn_of_damage(target.read())
    for letter, body in read_bodies(target.file(), {identifier}, target.keys):
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
@click.option("--to", default="", metavar="ID", help="Exporter to send them through, instead of their own.")
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
    """Send letters again through the running agent.

    A letter is removed when it has been delivered. If it is refused again, it is kept with the new reason. Exits 1
    unless all were delivered.
    """
    target = LetterStore.of(config, overrides, None, socket)
    choice = _choice(ids, exporter, everything=everything)
    if target.socket is None:
        raise AgentError("only a running agent can resend: give its --socket, or a --config with a control socket")
    try:
        done = ask(target.socket, "POST", "/dead-letters/resend", {**choice, "to": to, "wait": wait}, wait + PATIENCE)
    except NoAnswerError as error:
        raise AgentError(f"{error}. Only a running agent can resend: start it first") from error
    return _report(done, wait)


@dead_letter.command()
@_target_options
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_all_option
@_exporter_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
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
    """Remove letters permanently."""
    target = LetterStore.of(config, overrides, path, socket)
    choice = _choice(ids, exporter, everything=everything)
    chosen = [letter for letter in target.read().letters if _selects(choice, letter)]
    unknown = sorted(set(ids) - {letter.id for letter in chosen})
    if unknown:
        raise AgentError(_no_such(unknown))
    if not chosen:
        click.echo("no dead letters to purge", err=True)
        return 0
    items = sum(letter.items for letter in chosen)
    if not yes:
        what = f"Purge {_count(len(chosen), 'letter')} with {_count(items, 'item')}? This cannot be undone."
        click.confirm(what, abort=True, err=True)
    purged = _purge(target, {"ids": [letter.id for letter in chosen]})
    click.echo(f"purged {_count(purged, 'letter')}")
    return 0


def _purge(target: LetterStore, choice: dict[str, Any]) -> int:
    """Remove letters, through the agent if it has the file open; return how many were removed."""
    path, ids = target.file(), frozenset(choice["ids"])
    file = LetterFile(path, 0)
    try:
        file.open()
    except LockedError as error:
        if target.socket is None:
            raise AgentError(f"{error} Give its --socket, so that the agent can purge them") from error
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
    """Print the outcome of `resend`; return the exit status."""
    if done["unknown"]:
        click.echo(f"error: {_no_such(done['unknown'])}", err=True)
    for name, letters in done["without_exporter"].items():
        click.echo(
            f"error: {_count(letters, 'letter')} of {name}, which is in no running pipeline of their signal: "
            "give another exporter with --to",
            err=True,
        )
    parts = [f"{_count(done['delivered'], 'letter')} delivered"]
    if done["refused"]:
        parts.append(f"{done['refused']} refused again (`dead-letter list` has the reasons)")
    if done["kept"]:
        parts.append(f"{done['kept']} not delivered (the agent's log has the reason)")
    if done["pending"]:
        parts.append(f"{done['pending']} not done within {format_duration(wait)}: the agent continues with them")
    click.echo(", ".join(parts))
    return 0 if done["delivered"] == done["letters"] and not done["unknown"] else 1


def _choice(ids: Sequence[str], exporter: str, *, everything: bool) -> dict[str, Any]:
    """Return the letters that the options select, in the form of the control API; raise `UsageError` if none."""
    if ids and (everything or exporter):
        message = "give either ids, or --all or --exporter"
        raise click.UsageError(message)
    if ids:
        return {"ids": list(ids)}
    if not (everything or exporter):
        message = "give the letters: their ids (see `dead-letter list`), --exporter ID, or --all"
        raise click.UsageError(message)
    return {"all": True, "exporter": exporter}


def _selects(choice: dict[str, Any], letter: Letter) -> bool:
    if "ids" in choice:
        return letter.id in choice["ids"]
    return choice["exporter"] in {"", letter.exporter}


def _described(letter: Letter) -> dict[str, Any]:
    """Return a letter's metadata for JSON output, with the time in RFC 3339 format."""
    return {**letter.to_json(), "time": _when(letter).isoformat(timespec="milliseconds")}


def _decoded(letter: Letter, body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the telemetry in a letter as OTLP/JSON, or a text that says why it cannot be shown."""
    if letter.encodings:
        return f"{len(body)} bytes, encoded with {', '.join(letter.encodings)}: see --raw"
    from otelwp_agent.codecs import otlp_json  # noqa: PLC0415 - slow to import, and only needed here

    try:
        return json.loads(otlp_json.encode(letter.signal, body))
    except AgentError as error:
        return f"{len(body)} bytes that are not valid OTLP ({error}): see --raw"


def _row(letter: Letter) -> tuple[str, ...]:
    when = _when(letter).strftime("%Y-%m-%d %H:%M:%S")
    signal = letter.signal.value
    return (letter.id, when, letter.exporter, signal, str(letter.items), letter.reason, _one_line(letter.error))


def _when(letter: Letter) -> datetime:
    return datetime.fromtimestamp(letter.time).astimezone()


def _one_line(text: str) -> str:
    """Return a backend's text as one short line without control characters, safe for a terminal."""
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
