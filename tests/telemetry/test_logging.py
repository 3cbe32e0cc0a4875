from __future__ import annotations

import io
import json
import logging
import warnings
from dataclasses import dataclass
from enum import Enum

import pytest
import structlog

from otelwp_agent.config.types import Secret
from otelwp_agent.telemetry import logging as agent_logging


@pytest.fixture(autouse=True)
def as_before():
    root = logging.getLogger()
    level = root.level
    yield
    agent_logging.configure("info", "console")
    logging.captureWarnings(capture=False)
    for handler in root.handlers[:]:
        if isinstance(handler, agent_logging._Libraries):
            root.removeHandler(handler)
    root.setLevel(level)


def log_to(encoding="json", level="info"):
    stream = io.StringIO()
    agent_logging.configure(level, encoding, stream)
    return stream


def events(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_holds_time_level_event_and_context():
    stream = log_to()
    agent_logging.get("otlp", kind="receiver").warning("refused", reason="too_large", bytes=5)
    (event,) = events(stream)
    stamp = event.pop("timestamp")
    assert event == {
        "level": "warning",
        "event": "refused",
        "component": "otlp",
        "kind": "receiver",
        "reason": "too_large",
        "bytes": 5,
    }
    assert stamp[10] == "T"
    assert stamp.endswith("Z")
    assert len(stamp) == len("2026-11-20T15:04:05.123456Z")


def test_loggers_handed_out_before_obey_a_new_configuration():
    early = agent_logging.get("early")
    bound = early.bind(more=1)
    ordinary = structlog.get_logger()
    first = log_to(level="error")
    for log in (early, bound, ordinary):
        log.info("silent")
    assert first.getvalue() == ""
    second = log_to(level="debug")
    for log in (early, bound, ordinary):
        log.debug("heard")
    assert [event["event"] for event in events(second)] == ["heard"] * 3
    assert first.getvalue() == ""


@pytest.mark.parametrize("level", ["debug", "info", "warn", "warning", "error"])
def test_level_is_the_least_that_is_written(level):
    stream = log_to(level=level)
    log = agent_logging.get()
    for method in ("debug", "info", "warning", "error"):
        getattr(log, method)("event")
    order = ["debug", "info", "warning", "error"]
    least = "warning" if level == "warn" else level
    assert [event["level"] for event in events(stream)] == order[order.index(least) :]


@pytest.mark.parametrize("encoding", ["json", "console"])
def test_secrets_and_payloads_never_come_out(encoding):
    stream = log_to(encoding)
    secret = Secret("hunter2")

    @dataclass
    class Holder:
        token: Secret

    agent_logging.get("x", key=secret).info(
        "config",
        plain=secret,
        nested={"a": [secret, {"b": secret}]},
        held=Holder(secret),
        body=b"4111-11",
        parts=[b"4111-11"],
    )
    assert "hunter2" not in stream.getvalue()
    assert "4111" not in stream.getvalue()
    assert agent_logging.REDACTED in stream.getvalue()
    assert "<7 bytes>" in stream.getvalue()


def test_an_exception_is_one_field():
    stream = log_to()
    log = agent_logging.get()
    try:
        int("no good")
    except ValueError as error:
        log.exception("failed")
        log.warning("failed", exc_info=error)
    log.error("fine", exc_info=None)
    first, second, third = events(stream)
    assert first["exception"] == second["exception"]
    assert first["exception"].startswith("Traceback")
    assert first["exception"].endswith("with base 10: 'no good'")
    assert "exc_info" not in third
    assert "exception" not in third


def test_values_json_has_no_word_for():
    stream = log_to()

    class Colour(Enum):
        RED = "red"

    class Broken:
        def __str__(self):
            raise RuntimeError

    circle: list[object] = []
    circle.append(circle)
    agent_logging.get().info(
        "odd",
        big=2**70,
        nan=float("nan"),
        lone="\ud800",
        colour=Colour.RED,
        broken=Broken(),
        circle=circle,
        error=OSError(2, "gone"),
    )
    (event,) = events(stream)
    assert event["big"] == 2**70
    assert event["nan"] is None
    assert event["colour"] == "red"
    assert event["broken"] == "<Broken>"
    assert event["error"] == "[Errno 2] gone"


def test_console_is_one_line_that_no_value_can_forge():
    stream = log_to("console")
    agent_logging.get("otlp").error(
        "refused", peer="1.2.3.4", why='said "no"', text_="a\n2026 ERROR forged\x1b[31m\u202e"
    )
    (line,) = stream.getvalue().splitlines()
    assert line[24:] == (
        r' ERROR refused  component=otlp peer=1.2.3.4 why="said \"no\"" text_="a\n2026 ERROR forged\u001b[31m\u202e"'
    )
    assert line[23] == "Z"


def test_console_prints_text_and_traceback_below():
    stream = log_to("console")
    agent_logging.get().info("traces", spans=2, text="first\nsec\x1bond\n")
    try:
        {}["k"]
    except KeyError:
        agent_logging.get().exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("INFO  traces  spans=2")
    assert lines[1:3] == ["first", r"sec\x1bond"]
    assert lines[4].startswith("Traceback")
    assert lines[-1] == "KeyError: 'k'"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    agent_logging.configure("info", "console", terminal)
    agent_logging.get().info("event", key=1)
    assert "\x1b[" in terminal.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    agent_logging.configure("info", "console", plain)
    agent_logging.get().info("event", key=1)
    assert "\x1b" not in plain.getvalue()
    assert "event  key=1" in plain.getvalue()


def test_libraries_and_warnings_come_out_the_same_way():
    stream = log_to()
    logging.getLogger("asyncio").error("task %s", "stuck")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)  # an agent that ran in this process before has left it on
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    library, warning = events(stream)
    assert (library["event"], library["logger"], library["level"]) == ("task stuck", "asyncio", "error")
    assert "old thing" in warning["event"]
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")


def test_a_library_that_formats_badly_is_told_and_ends_nothing():
    stream = log_to()
    record = logging.LogRecord("grpc", logging.ERROR, "file.py", 1, "%d apples", ("no number",), None)
    agent_logging._Libraries().emit(record)
    (event,) = events(stream)
    assert (event["event"], event["logger"]) == ("log record of a library cannot be formatted", "grpc")


def test_configuring_twice_does_not_write_twice():
    log_to()
    stream = log_to()
    logging.getLogger("grpc").error("once")
    assert len(events(stream)) == 1


def test_a_log_that_cannot_be_written_ends_nothing():
    class Full(io.StringIO):
        def write(self, _line):
            raise OSError(28, "No space left on device")

    agent_logging.configure("info", "json", Full())
    agent_logging.get().info("lost")
    closed = io.StringIO()
    closed.close()
    agent_logging.configure("info", "console", closed)
    agent_logging.get().info("lost")


@dataclass
class _Holder:
    url: str


def test_secrets_in_urls_are_redacted_wherever_they_stand():
    stream = log_to()
    url = "https://u:geheim@api.example/v1/0123abcd4567ef890123abcd4567ef89/spans?key=geheim"
    log = agent_logging.get("otlp_http", endpoint=url)
    text = f"cannot reach {url}"
    log.warning(text, nested={"a": [url]}, holder=_Holder(url), path="/no/url")
    try:
        int(url)
    except ValueError:
        log.exception("failed")
    assert "geheim" not in stream.getvalue()
    assert "0123abcd" not in stream.getvalue()
    first, _ = events(stream)
    redacted = "https://***@api.example/v1/***/spans?key=***"
    assert first["event"] == f"cannot reach {redacted}"
    assert first["endpoint"] == redacted
    assert first["nested"] == {"a": [redacted]}
    assert first["path"] == "/no/url"
