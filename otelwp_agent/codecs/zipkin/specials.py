"""Convert tags of a Zipkin span with a special meaning to the fields of an OTLP span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.codecs.key_value import attribute
from otelwp_agent.codecs.zipkin.fragments import (
    DROPPED_ATTRIBUTES,
    DROPPED_EVENTS,
    DROPPED_LINKS,
    ERROR,
    SCOPE_NAMES,
    SCOPE_VERSIONS,
    STATUS_CODE,
    TRACE_STATE,
)
from otelwp_agent.model.wire import prefixed, varint

if TYPE_CHECKING:
    from otelwp_agent.codecs.key_value import Value

STATUS_DESCRIPTION = "otel.status_description"
SPAN_KIND = "span.kind"
SPECIAL = frozenset(
    {
        ERROR,
        STATUS_CODE,
        STATUS_DESCRIPTION,
        SPAN_KIND,
        TRACE_STATE,
        DROPPED_ATTRIBUTES,
        DROPPED_EVENTS,
        DROPPED_LINKS,
        *SCOPE_NAMES,
        *SCOPE_VERSIONS,
    }
)
"""Tags that become fields."""

ATTRIBUTE = b"\x4a"
"""Tag of `attributes` in trace.proto's Span (9)."""

_CODES = {"OK": 1, "STATUS_CODE_OK": 1, "ERROR": 2, "STATUS_CODE_ERROR": 2, "UNSET": 0, "STATUS_CODE_UNSET": 0}
_DROPPED = ((DROPPED_ATTRIBUTES, b"\x50"), (DROPPED_EVENTS, b"\x60"), (DROPPED_LINKS, b"\x70"))
"""Tags of the counts in trace.proto's Span: 10, 12 and 14."""
_UINT32 = range(1, 1 << 32)


def scope(specials: dict[str, Value]) -> tuple[str, str]:
    """Return the name and version of the instrumentation scope."""
    name, version = (
        next((str(specials[key]) for key in keys if specials.get(key)), "") for keys in (SCOPE_NAMES, SCOPE_VERSIONS)
    )
    return name, version


def fields(specials: dict[str, Value]) -> bytes:
    """Return the fields made from special tags: trace state, counts, status. Invalid tags remain attributes."""
    parts = []
    if specials.get(TRACE_STATE):
        parts.append(prefixed(b"\x1a", str(specials[TRACE_STATE]).encode()))
    for key, tag in _DROPPED:
        count = str(specials.get(key, ""))
        if count.isascii() and count.isdigit() and int(count[:11]) in _UINT32:
            parts.append(tag + varint(int(count)))
        elif key in specials:
            parts.append(ATTRIBUTE + attribute(key, specials[key]))
    parts.append(_status(specials))
    return b"".join(parts)


def _status(specials: dict[str, Value]) -> bytes:
    """Return the status.

    A tag `error` means an error, whatever its value, unless that is "false" or `otel.status_code` has another status.
    Its value is the message, unless that is "true".
    """
    error = specials.get(ERROR)
    text = "" if error is None else "true" if error is True else "false" if error is False else str(error)
    code = _CODES.get(str(specials.get(STATUS_CODE, "")).upper())
    kept = b""
    if code is None:
        code = 2 if error is not None and text.lower() != "false" else 0
        if STATUS_CODE in specials:
            kept += ATTRIBUTE + attribute(STATUS_CODE, specials[STATUS_CODE])
    if error is not None and (code != 2 or text.lower() == "false"):  # noqa: PLR2004 - an error
        kept += ATTRIBUTE + attribute(ERROR, error)
    message = str(specials.get(STATUS_DESCRIPTION, ""))
    if code == 2 and not message and text.lower() not in {"true", "false"}:  # noqa: PLR2004 - an error
        message = text
    body = (prefixed(b"\x12", message.encode()) if message else b"") + (b"\x18%c" % code if code else b"")
    return kept + (prefixed(b"\x7a", body) if body else b"")
