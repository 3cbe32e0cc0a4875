"""Bodies of heartbeats and events, and their validation.

Unknown members are ignored, so that newer plugins can send more. PHP writes empty objects as `[]`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from otelwp_agent.codecs.heartbeat.plugin_version import LONGEST, is_version

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MEMBERS = 200
"""Most names and values in the data of an event, at all levels."""
MAX_DEPTH = 5
"""Deepest nesting of the data of an event."""
LONGEST_TEXT = 2048
"""Most characters of a text in the data of an event."""
LONGEST_STACK_TRACE = 16_384
"""Most characters of a stack trace."""
INT64 = range(-(2**63), 2**63)

EventType = Literal["payment_success", "payment_failed", "error", "warning", "info"]
Severity = Literal["debug", "info", "warning", "error", "critical"]
SEVERITIES: dict[str, Severity] = {"payment_failed": "error", "error": "error", "warning": "warning"}
"""Severity of events that give none, by type; else `info`."""


def _empty_object(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    return {} if value == [] else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("use printable characters only")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a text must not contain the character U+0000")
    return value


def _version(value: str) -> str:
    if not is_version(value):
        raise ValueError("this is not a version: use the form of 1.3.5, 6.4 or 2.0.0-beta.1")
    return value


def _as_text(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """Return a value in `server_info` as text; numbers and booleans are accepted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse data that are too large or too deep, or that JSON stores cannot keep."""
    for count, (each, depth) in enumerate(_values(value, 0)):
        if count > MAX_MEMBERS:
            message = f"there are more than {MAX_MEMBERS} names and values"
            raise ValueError(message)
        if depth > MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} deep"
            raise ValueError(message)
        _check_scalar(each)
    return value


def _values(value: Any, depth: int) -> Iterator[tuple[Any, int]]:  # noqa: ANN401 - a value of JSON
    """Yield the names and values in a value, with their depth; what is too deep is yielded, but not entered."""
    yield value, depth
    if depth > MAX_DEPTH or not isinstance(value, dict | list):
        return
    if isinstance(value, dict):
        for name in value:
            yield name, depth
    for inner in value.values() if isinstance(value, dict) else value:
        yield from _values(inner, depth + 1)


def _check_scalar(value: Any) -> None:  # noqa: ANN401 - a value of JSON
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            message = f"a text is longer than {LONGEST_TEXT} characters"
            raise ValueError(message)
        _without_nul(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and infinite numbers are not JSON")
    elif isinstance(value, int) and value not in INT64:
        raise ValueError("an integer needs more than 64 bits: send it as text")


Word = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$")]
Text = Annotated[str, AfterValidator(_printable)]
Info = Annotated[str, Field(max_length=256), BeforeValidator(_as_text), AfterValidator(_printable)]
Environment = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,30}[A-Za-z0-9])?$")]


class PluginBody(BaseModel):
    """Members that heartbeats and events have in common."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    merchant_id: Annotated[str, Field(min_length=1, max_length=63)]
    cms: Word
    environment: Environment = "production"
    site_id: Annotated[Text, Field(max_length=128)] = ""
    """Distinguishes the sites of a merchant with the same CMS and environment."""
    sent_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    """Time of the plugin's clock."""


class HeartbeatBody(PluginBody):
    """The body of a heartbeat."""

    plugin_version: Annotated[str, Field(max_length=LONGEST), AfterValidator(_version)]
    sdk_language: Annotated[Text, Field(max_length=32)] = ""
    errors_last_hour: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    php_version: Annotated[Text, Field(max_length=64)] = ""
    cms_version: Annotated[Text, Field(max_length=64)] = ""
    wordpress_version: Annotated[Text, Field(max_length=64)] = ""
    """The same as `cms_version`, for WordPress."""
    server_info: Annotated[
        dict[Annotated[Text, Field(min_length=1, max_length=64)], Info],
        Field(max_length=32),
        BeforeValidator(_empty_object),
    ] = Field(default_factory=dict)
    acknowledged: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=20)] = Field(
        default_factory=list
    )
    """Ids of notices that a person has seen."""


class EventBody(PluginBody):
    """The body of an event."""

    event_type: EventType
    event_data: Annotated[dict[str, Any], BeforeValidator(_empty_object), AfterValidator(_bounded)] = Field(
        default_factory=dict
    )
    severity: Severity | None = None
    stack_trace: Annotated[str, Field(max_length=LONGEST_STACK_TRACE), AfterValidator(_without_nul)] | None = None
    installation_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None
    """The installation, as a reply to a heartbeat named it."""
    event_id: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")] | None = None
    """Id of the event. An event with an id is stored once."""

    @property
    def level(self) -> Severity:
        """The severity, by default that of the type."""
        return self.severity or SEVERITIES.get(self.event_type, "info")
