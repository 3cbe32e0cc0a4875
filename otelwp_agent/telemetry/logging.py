"""The agent's own logs, with structlog: one line per event, for people (`console`) or programs (`json`).

Invariants:

* `configure` may be called at any time, also at a reload: all existing loggers use the new level, encoding and stream
  immediately.
* Logging never raises an exception: a line that cannot be written is lost.
* Secrets are redacted by type, and inside URLs (`telemetry.redaction`). Of bytes only the length is logged. Control
  characters in values are escaped, so that a client cannot forge a log line.
* The logs of libraries (asyncio, grpc, warnings) have the same form.

JSON, in which the traceback of an exception is the field `exception`::

    {"timestamp":"2026-11-20T15:04:05.123456Z","level":"warning","event":"send_failed","component":"otlp"}

Console::

    2026-11-20T15:04:05.123Z WARN  send_failed  component=otlp error="connection refused"

A field named `text` contains lines for people; the console prints them below the event.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import orjson
import structlog
from pydantic import SecretBytes, SecretStr

from otelwp_agent.telemetry.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import FilteringBoundLogger

Level = Literal["debug", "info", "warn", "warning", "error"]
Encoding = Literal["console", "json"]

REDACTED = "[redacted]"
"""Text that replaces a secret."""

_MAX_DEPTH = 8
"""Deepest nesting of values that are logged; of deeper values only the type is logged."""

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40}
_LABELS = {"debug": "DEBUG", "info": "INFO ", "warning": "WARN ", "error": "ERROR", "critical": "FATAL"}
_COLOURS = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


def configure(
    level: Level = "info",
    encoding: Encoding = "console",
    stream: TextIO | None = None,
    *,
    paths: Sequence[str] = (),
    fields: Mapping[str, object] | None = None,
) -> None:
    """Write events of at least `level` to `stream` (default: stderr), including those of libraries.

    `paths` replace the stream: `stderr`, `stdout`, or files, to which lines are appended. All files are opened before
    any is used, and `OSError` is raised if one cannot be opened. `fields` are added to every event. The console uses
    colours if the stream is a terminal and NO_COLOR is not set (https://no-color.org).
    """
    _sink.switch_to(_open(paths) if paths else [stream])
    _Logger.__bases__ = (structlog.make_filtering_bound_logger(_LEVELS[level]),)
    render = _json if encoding == "json" else _Console(colour=_wants_colour(_sink.target()))
    always = dict(fields or {})
    add = [lambda _logger, _method, event: {**always, **event}] if always else []
    _processors[:] = [_stamp, *add, _explain, _tame, render]
    _route_libraries(level)


def _open(paths: Sequence[str]) -> list[TextIO | None]:
    streams: list[TextIO | None] = []
    try:
        for path in paths:
            standard = {"stderr": None, "stdout": sys.stdout}
            streams.append(standard[path] if path in standard else open(path, "a", encoding="utf-8"))  # noqa: PTH123, SIM115
    except OSError:
        for stream in streams:
            if stream not in (None, sys.stdout):
                stream.close()
        raise
    return streams


def get(component: str = "", **context: object) -> FilteringBoundLogger:
    """Return a logger that adds `component` and `context` to its events; calls below the level return immediately."""
    head = {"component": component} if component else {}
    return cast("FilteringBoundLogger", _Logger(_sink, _processors, {**head, **context}))


class _Sink:
    """Writes lines to the configured streams. structlog calls the method with the name of the level."""

    def __init__(self) -> None:
        self._streams: list[TextIO | None] = [None]

    def switch_to(self, streams: list[TextIO | None]) -> None:
        """Write to `streams` from now on (`None` is stderr), and close the previous files."""
        before, self._streams = self._streams, streams
        for stream in before:
            if (
                stream is not None
                and stream not in (sys.stdout, sys.__stdout__, sys.stderr)
                and hasattr(stream, "name")
            ):
                stream.close()

    def target(self) -> TextIO:
        """Return the first stream; stderr is looked up at each call, because it may be replaced."""
        return self._streams[0] or sys.stderr

    def write(self, line: str) -> None:
        """Write one event to each stream in one call, so that lines of several threads do not mix."""
        for stream in self._streams:
            try:
                target = stream or sys.stderr
                target.write(line + "\n")
                target.flush()
            except (OSError, ValueError):
                pass  # the log cannot be written: losing lines is better than losing telemetry

    debug = info = warning = error = critical = write


class _Logger(structlog.make_filtering_bound_logger("info")):  # type: ignore[misc] # a class made at run time
    """Class of all loggers; `configure` replaces its base class to change the level of all loggers."""


class _Console:
    """Renders an event as one line for people; an exception and `text` follow below it."""

    def __init__(self, *, colour: bool) -> None:
        self.colour = colour

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        at, level, name = event.pop("timestamp"), event.pop("level"), event.pop("event", "")
        below = [part for part in (event.pop("exception", None), event.pop("text", None)) if part]
        fields = [f"{self._paint(_DIM, key + '=')}{_value(value)}" for key, value in event.items()]
        label = self._paint(_COLOURS.get(level, ""), _LABELS.get(level, level.upper()))
        head = f"{at[:-4]}Z {label} {self._paint(_BOLD, _printable(str(name), keep=''))}"
        line = "  ".join([head, " ".join(fields)]) if fields else head
        return "\n".join([line, *(_printable(str(part)).rstrip("\n") for part in below)])

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self.colour and code else text


class _Libraries(logging.Handler):
    """Forwards the log records of libraries to the agent's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; `logger` names the library."""
        try:
            name = logging.getLevelName(record.levelno).lower()
            method = name if name in _LABELS else "info"
            log = get(logger=record.name)
            getattr(log, method)(record.getMessage(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001 - an invalid format string in a library must not raise
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Log the name of the library whose record could not be formatted, without its arguments."""
        get(logger=record.name).warning("log record of a library cannot be formatted", record=str(record.msg))


def _route_libraries(level: Level) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Libraries):
            root.removeHandler(handler)
    root.addHandler(_Libraries())
    root.setLevel(max(_LEVELS[level], logging.INFO))
    logging.captureWarnings(capture=True)


def _wants_colour(stream: TextIO) -> bool:
    try:
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False


def _stamp(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the event with the time (UTC, ISO 8601, microseconds), the level and the event name first."""
    now = datetime.now(tz=UTC).isoformat(timespec="microseconds")
    return {"timestamp": now.removesuffix("+00:00") + "Z", "level": method, "event": event.pop("event", ""), **event}


def _explain(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the field `exception` with the traceback."""
    if not event.get("exc_info"):
        event.pop("exc_info", None)
        return event
    return structlog.processors.format_exc_info(_logger, _method, event)


def _tame(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make every value plain data: secrets are redacted, bytes replaced by their length, objects by their text."""
    for key, value in event.items():
        if type(value) is str:
            if "://" in value:
                event[key] = redact_text(value)
        elif type(value) not in (int, float, bool):
            event[key] = _plain(value)
    return event


def _plain(value: object, depth: int = 0) -> object:  # noqa: PLR0911 - one line for each kind of value
    if value is None or isinstance(value, (str, int, float)):
        return redact_text(str(value)) if isinstance(value, str) else value
    if isinstance(value, (SecretStr, SecretBytes)):
        return REDACTED
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(key): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (Sequence, AbstractSet)):
            return [_plain(item, depth + 1) for item in value]
    try:
        kind = f"<{type(value).__name__}>"
        return kind if isinstance(value, (Mapping, Sequence, AbstractSet)) else redact_text(str(value))
    except Exception:  # noqa: BLE001 - a broken __str__ must not raise
        return f"<{type(value).__name__}>"


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # integers above 64 bits, lone surrogates
        return json.dumps(json.loads(json.dumps(event), parse_constant=lambda _: None))


def _value(value: object) -> str:
    """Return a value for the console: without quotes if it reads as one word, else as JSON."""
    if isinstance(value, str) and value and value.isprintable() and not any(char in value for char in ' "='):
        return value
    return _printable(json.dumps(value, ensure_ascii=False), keep="")


def _printable(text: str, keep: str = "\n\t") -> str:
    """Escape characters that could move the cursor, forge a line or break the encoding, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


_sink = _Sink()
_processors: list[Any] = [_stamp, _explain, _tame, _Console(colour=False)]
structlog.configure(
    processors=_processors,
    wrapper_class=_Logger,
    context_class=dict,
    logger_factory=lambda *_: _sink,
    cache_logger_on_first_use=True,
)
