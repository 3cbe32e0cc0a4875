"""Which WordPress site sent something: the host in the User-Agent that every WordPress gives its requests."""

from __future__ import annotations

import re

UNKNOWN, OTHER = "unknown", "other"
"""In place of a site: one that did not say, and all that come after the last that is kept apart."""

_SITE = re.compile(r"WordPress/[^;]{0,40}; https?://([^/\s?#]{1,128})(?:[/\s?#]|$)")


def site_of(user_agent: str) -> str:
    """Return the host (and port) of the site in `WordPress/6.1.9; http://shop.example/blog`, or `unknown`."""
    found = _SITE.match(user_agent)
    return UNKNOWN if found is None else found[1].rpartition("@")[2].lower() or UNKNOWN


class Sites:
    """Keeps the number of sites bounded, because anybody can make up names: the first ones are told apart."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int = 100) -> None:
        """Tell `limit` sites apart."""
        self._limit = limit
        self._names: set[str] = set()

    def name(self, user_agent: str) -> str:
        """Return the site's name, `unknown`, or `other`."""
        return self.keep(site_of(user_agent))

    def keep(self, site: str) -> str:
        """Return `site` if it is among those that are told apart, else `other`."""
        if site in self._names or site == UNKNOWN:
            return site
        if len(self._names) >= self._limit:
            return OTHER
        self._names.add(site)
        return site
