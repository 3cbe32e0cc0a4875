"""The report on one site: one HTML file without scripts and without files from servers."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MEASURES = {
    "profiled": "Times come from profiled pages: they include all functions of plugins in hooks.",
    "lower_bound": (
        "Times are lower bounds: loading, queries and outgoing requests. Set a profile rate in the WordPress plugin to "
        "measure functions, too."
    ),
    "spans": "Times are the own times of spans. Time that no span of a plugin covers counts as core.",
}
"""Explanations of the times of plugins, by measure."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:32px auto;padding:0 16px;color:#1b1f27;background:#fff}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:32px 0 8px}p{color:#565e6c}
table{border-collapse:collapse;width:100%}th,td{padding:6px 10px;border-bottom:1px solid #d9dde4;text-align:left}
th{color:#565e6c;font-size:.86rem}.n{text-align:right;white-space:nowrap}td:first-child{overflow-wrap:anywhere}
"""


def report(site: str, found: Mapping[str, Any], now: float) -> str:
    """Return the report on `site` as HTML, from the result of `blame`; `now` is in seconds since 1970."""
    page = found["page"]
    owners = [
        (
            row["owner"],
            _interval(row),
            f"{100 * row['share']:.0f} %",
            f"{row['queries']:.1f}",
            f"{row['errors']:.0f}",
            row["slowest"],
        )
        for row in found["owners"]
    ]
    routes = [
        (row["route"], f"{row['pages']:.0f}", _interval(row), f"{row['errors']:.0f}", row["slowest_owner"])
        for row in found["routes"]
    ]
    parts = [
        f"<h1>Performance of {escape(site)}</h1>",
        f"<p>{_moment(found['since'] / 1e6)} to {_moment(found['until'] / 1e6)}, written {_moment(now)}.</p>",
        f"<p>About {found['pages']:.0f} pages, from {found['traces']} traces.</p>",
        f"<p>A page takes <strong>{escape(_interval(page))}</strong> on average (95 % interval).</p>",
        "<h2>Plugins and themes</h2>",
        f"<p>{escape(MEASURES[found['measure']])} {found['measured']} traces were used.</p>",
        _table(
            ("Plugin or theme", "Time per page", "Share", "Queries per page", "Errors", "Slowest call"), owners, 1, 5
        ),
        "<h2>Routes</h2>",
        _table(("Route", "Pages", "Page time", "Errors", "Most time"), routes, 1, 4),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Performance of {escape(site)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], first: int, end: int) -> str:
    """Return a table, with the columns from `first` to before `end` right-aligned."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        marked = (f'<{tag} class="n">' if first <= at < end else f"<{tag}>" for at in range(len(texts)))
        return "".join(f"{begin}{escape(text)}</{tag}>" for begin, text in zip(marked, texts, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _interval(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "unknown"
    if row["low"] is None:
        return f"{row['mean']:.1f} ms"
    return f"{row['mean']:.1f} ms ({row['low']:.1f} to {row['high']:.1f})"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
