"""Types of configuration fields: durations, sizes, endpoints and secrets."""

from __future__ import annotations

import re
from collections.abc import Callable  # noqa: TC003 - a field's annotation
from dataclasses import dataclass
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from otelwp_agent.telemetry.redaction import redact_url

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_SIZES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)


def parse_duration(value: object) -> float:
    """Return a duration such as `1h30m`, `200ms` or 0 in seconds; raise `ValueError` if it is invalid."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        message = f"a duration needs a unit: write `{value}s` or `{value}ms`"
        raise ValueError(message)
    if isinstance(value, str):
        text = value.strip()
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
        if digits == "0":
            return 0.0
        parts = _DURATION.findall(digits)
        if parts and "".join(number + unit for number, unit in parts) == digits:
            return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    message = f"{value!r} is not a duration: write a number and a unit, like `200ms`, `5s` or `1h30m`"
    raise ValueError(message)


def format_duration(seconds: float) -> str:
    """Return seconds as a duration with units: `200ms`, `1h30m`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds == 0:
        return "0s"
    if seconds < 1:
        for unit, size in (("ms", 1e-3), ("us", 1e-6)):
            if seconds >= size:
                return f"{round(seconds / size, 6):g}{unit}"
        return f"{round(seconds / 1e-9):g}ns"
    whole, parts = seconds, []
    for unit, size in (("h", 3600), ("m", 60)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{int(count)}{unit}")
    if whole:
        parts.append(f"{round(whole, 6):g}s")
    return "".join(parts)


def parse_size(value: object) -> int:
    """Return a size such as `20MiB`, `4m` or a number in bytes; raise `ValueError` if it is invalid."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            return int(float(match[1]) * _SIZES[(match[2] or "").lower()])
    message = f"{value!r} is not a size: write a number of bytes, or a number and a unit, like `512KiB` or `20MiB`"
    raise ValueError(message)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d))+)$"},
                {"const": 0},
            ],
            "description": "A number and a unit: 200ms, 5s, 1h30m",
        }
    ),
]
"""Seconds, as a float; in YAML a number and a unit."""

PositiveDuration = Annotated[Duration, Field(gt=0)]
"""A duration above 0."""

ByteSize = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([kKmMgG][iI]?)?[bB]?\s*$"},
            ],
            "description": "Bytes, or a number and a unit: 512KiB, 20MiB",
        }
    ),
]
"""Bytes, as an int; in YAML a number, or a number and a unit."""


class Secret(SecretStr):
    """A value that is never printed; `get_secret_value()` returns it."""


NullIsPresent = BeforeValidator(lambda value: {} if value is None else value)
"""Reads `section:` without a value as a section with default settings, where `None` would mean that it is absent."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Marks a setting of the Collector that is accepted without effect; setting it gives a warning that says `why`.

    With `values`, only those values (or a list that contains one of them) give a warning; `harmless` values never do.
    If `when` is given, it decides instead.
    """

    why: str
    values: tuple[Any, ...] = ()
    harmless: tuple[Any, ...] = (None,)
    when: Callable[[Any], bool] | None = None

    def concerns(self, value: object) -> bool:
        """Whether `value`, as written in YAML, gives the warning."""
        if self.when is not None:
            return self.when(value)
        if not self.values:
            return value not in self.harmless
        return any(item in self.values for item in (value if isinstance(value, list) else [value]))


@dataclass(frozen=True, slots=True)
class Refused:
    """Marks a setting of the Collector that cannot be supported; setting it is an error that says `why`.

    Values that turn the setting off are accepted: `null`, `false`, an empty list or map, `{enabled: false}`.
    """

    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Refuse all values that do not turn the setting off."""
        return core_schema.no_info_plain_validator_function(
            self._refuse, serialization=core_schema.to_string_ser_schema(when_used="unless-none")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Mark the setting as deprecated, so that editors show it."""
        return {"enum": [None, False, [], {}], "deprecated": True}

    def _refuse(self, value: object) -> None:
        if value and value != {"enabled": False}:
            raise ValueError(self.why)


class Endpoint(str):
    """`host:port`, `:port`, `unix:///path`, or for HTTP clients an http(s) URL. Parsed once, on load."""

    __slots__ = ("host", "path", "port", "scheme", "unix")

    scheme: str
    """`http`, `https`, or "" if none is given."""
    host: str
    port: int | None
    path: str
    """Path of a URL, without a trailing slash; "" if there is none."""
    unix: str
    """Path of a unix socket, or ""."""

    def __new__(cls, value: str) -> Self:
        """Parse `value`; raise `ValueError` that names the valid forms if it is invalid."""
        self = super().__new__(cls, value)
        self.scheme = self.host = self.path = self.unix = ""
        self.port = None
        text = value.strip()
        if text.startswith("unix:"):
            self.unix = text.removeprefix("unix:").removeprefix("//")
            if not self.unix.startswith("/"):
                message = f"{redact_url(value)!r}: a unix socket needs an absolute path, like `unix:///run/otelwp.sock`"
                raise ValueError(message)
            return self
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "", text
        elif scheme not in ("http", "https", "dns", "tcp"):
            shown = redact_url(value)
            message = f"{shown!r}: unknown scheme {scheme!r}: write `host:port`, `http://…`, `https://…` or `unix:///…`"
            raise ValueError(message)
        self.scheme = scheme if scheme in ("http", "https") else ""
        try:
            url = urlsplit("//" + rest.lstrip("/"))
            self.host, self.port = url.hostname or "", url.port
        except ValueError as error:
            what = "a port is a number up to 65535" if "ort" in str(error) else "its host is not valid"
            message = f"{redact_url(value)!r} is not an endpoint: {what}"
            raise ValueError(message) from error
        self.path = url.path.rstrip("/") + (f"?{url.query}" if url.query else "")
        if not self.host and self.port is None:
            example = "a URL like `https://collector.example:4318`" if scheme else "`host:port`, like `127.0.0.1:4317`"
            message = f"{redact_url(value)!r} is not an endpoint: write {example}"
            raise ValueError(message)
        return self

    @property
    def redacted(self) -> str:
        """Endpoint for messages and logs: without user information, query values and tokens in the path."""
        return redact_url(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Return a schema that accepts a string."""
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )
