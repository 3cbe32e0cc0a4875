"""Data about the requests of one resource, collected while its spans are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.processors.wordpress.attributes import Facts
    from otelwp_agent.processors.wordpress.queries import Queries


class Spans:
    """The spans of one scope, and whether one of them was changed."""

    __slots__ = ("_has_finding", "changed", "is_wordpress", "items")

    def __init__(self, items: list[bytes], *, is_wordpress: bool) -> None:
        self.items = items
        self.is_wordpress = is_wordpress
        self.changed = False
        self._has_finding: dict[tuple[int, bytes], bool] = {}

    def put(self, index: int, data: bytes) -> None:
        """Replace a span."""
        self.items[index] = data
        self.changed = True

    def has_finding(self, index: int, name: bytes) -> bool:
        """Return whether the sender has already added a finding with this name to the span."""
        key = (index, name)
        if key not in self._has_finding:
            self._has_finding[key] = name in self.items[index]
        return self._has_finding[key]


class Requests:
    """Data about the requests of one resource, collected while its spans are read."""

    __slots__ = ("_sites", "queries", "roots", "site_host")

    def __init__(self, found: Queries) -> None:
        self.queries = found
        self.roots: dict[bytes, tuple[Spans, int]] = {}
        self.site_host = ""
        self._sites: set[str] = set()

    def record_site(self, facts: Facts) -> None:
        """Record the site that a request's span names."""
        site_id = str(facts.get("site_id", ""))
        if site_id.isascii() and site_id.isdigit() and len(site_id) < 19:  # noqa: PLR2004 - 64 bits
            self._sites.add(site_id)
        self.site_host = str(facts.get("site_host") or self.site_host)

    @property
    def site_id(self) -> str:
        """The only site among these requests, or "" if there are none or several."""
        return next(iter(self._sites)) if len(self._sites) == 1 else ""


def find(scopes: Sequence[Spans], trace_id: bytes, span_id: bytes) -> tuple[Spans, int] | None:
    """Find a span. All spans are parsed again, because few are searched for."""
    for spans in scopes:
        for index, data in enumerate(spans.items):
            if span_id in data:
                span = parse(pb.WordPressSpan.FromString, data)
                if span.span_id == span_id and span.trace_id == trace_id:
                    return spans, index
    return None
