"""The time that each plugin and theme took in one trace.

The WordPress plugin reports it in the attribute `wordpress.plugin.usage` of the root span: a row of JSON for each
plugin and theme. The row has `self_ms` in profiled requests only (`wordpress.profile_rate`); else the time of queries
and outgoing requests is a lower bound. Traces without the attribute are measured by the own times of their spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Measure = Literal["profiled", "lower_bound", "spans"]
"""How the times of a trace were measured: by the profile of the WordPress plugin, by its sums of queries and requests,
or by the spans."""

CORE = "core"
"""The owner of what no plugin or theme causes: WordPress itself."""
LONGEST_NAME = 200
MOST_ROWS = 50
_MOST_MS = 1e9
"""Largest plausible figure of a row, in milliseconds; larger ones are ignored, as are negative ones."""


@dataclass(slots=True)
class OwnerUsage:
    """Sums of one plugin, theme, core or other in one trace."""

    us: float = 0.0
    """Microseconds."""
    queries: int = 0
    errors: int = 0
    slowest: str = ""
    """The function and hook of its slowest call, if known."""


def usage_of_rows(rows: Iterable[str], *, profiled: bool) -> dict[str, OwnerUsage]:
    """Return the usage by owner from the rows of the attribute. Invalid rows and figures are ignored."""
    usage: dict[str, OwnerUsage] = {}
    for text in rows:
        row = _row(text)
        if row is None or len(usage) >= MOST_ROWS:
            continue
        kind, name = row.get("kind"), row.get("name")
        owner = name[:LONGEST_NAME] if isinstance(name, str) and name else kind
        if owner not in (CORE, "other") and owner is kind:
            continue
        assert isinstance(owner, str)  # noqa: S101 - a name, `core` or `other`
        known = usage.setdefault(owner, OwnerUsage())
        times = ("load_ms", "self_ms") if profiled else ("load_ms", "sql_ms", "http_ms")
        known.us += 1000 * sum(_figure(row, time) for time in times)
        known.queries += int(_figure(row, "queries"))
        known.errors += int(_figure(row, "errors"))
        function, hook = row.get("slowest_function"), row.get("slowest_hook")
        if isinstance(function, str) and isinstance(hook, str):
            known.slowest = f"{function[:LONGEST_NAME]} in {hook[:LONGEST_NAME]}"
    return usage


def add_rest_to_core(usage: Mapping[str, OwnerUsage], us: float) -> dict[str, OwnerUsage]:
    """Return the usage of a profiled page of `us` microseconds, with the time of no other owner added to core."""
    core = usage.get(CORE, OwnerUsage())
    rest = max(0.0, us - sum(used.us for used in usage.values()))
    return {**usage, CORE: OwnerUsage(core.us + rest, core.queries, core.errors, core.slowest)}


def usage_of_spans(spans: Iterable[Mapping[str, Any]]) -> dict[str, OwnerUsage]:
    """Return the usage by owner from spans with `owner`, `self`, `error` and `query`."""
    usage: dict[str, OwnerUsage] = {}
    for span in spans:
        known = usage.setdefault(span["owner"], OwnerUsage())
        known.us += span["self"]
        known.queries += span["query"]
        known.errors += span["error"]
    return usage


def _row(text: str) -> dict[str, Any] | None:
    try:
        row = orjson.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _figure(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name, 0)
    valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_MS
    return float(value) if valid else 0.0
