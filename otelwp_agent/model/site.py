"""Identify the WordPress site that sent a request, by the host in WordPress's User-Agent header."""

from __future__ import annotations

import re

UNKNOWN, OTHER = "unknown", "other"
"""Names that replace a site: for requests without a site, and for sites above the limit."""

_SITE = re.compile(r"WordPress/[^;]{0,40}; https?://([^/\s?#]{1,128})(?:[/\s?#]|$)")


def site_of(user_agent: str) -> str:
    """Return the host (and port) of the site in `WordPress/6.1.9; http://shop.example/blog`, or `unknown`."""
    found = _SITE.match(user_agent)
    return UNKNOWN if found is None else found[1].rpartition("@")[2].lower() or UNKNOWN


class Sites:
    """Bounds the number of site names, which clients can invent: only the first ones are distinguished."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int = 100) -> None:
        """Distinguish at most `limit` sites."""
        self._limit = limit
        self._names: set[str] = set()

    def name(self, user_agent: str) -> str:
        """Return the name of the site in a User-Agent header, `unknown` or `other`."""
        return self.keep(site_of(user_agent))

    def keep(self, site: str) -> str:
        """Return `site` if it is one of the distinguished sites, else `other`."""
        if site in self._names or site == UNKNOWN:
            return site
        if len(self._names) >= self._limit:
            return OTHER
        self._names.add(site)
        return site
