"""Derive names of low cardinality for WordPress pages from address, status and flags.

The names equal those of this project's plugin, which has more information: `front`, `single`, `rest /wp/v2/posts/{id}`,
`admin edit.php`, `ajax heartbeat`, … With pretty permalinks an address does not show whether it is a post or a page:
`singular`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

MAX_DETAILS = 500
"""Maximum number of details (REST routes, AJAX actions) in names, because visitors can invent addresses."""

_LOGIN = frozenset({"confirm_admin_email", "confirmaction", "logout", "lostpassword", "postpass", "register"})
_RESET = frozenset({"resetpass", "rp"})
_FEED = re.compile(r"/feed(?:/(?:rss2?|atom|rdf))?/?$|/comments/feed/?$")
_DATE = re.compile(r"/(?:19|20)\d\d(?:/\d\d){0,2}/?(?:page/\d+/?)?$")
_DATED_POST = re.compile(r"/(?:19|20)\d\d/\d\d/(?:\d\d/)?[^/]+/?$")
_FRONT = re.compile(r"/?(?:index\.php/?)?(?:page/\d+/?)?$")
_SCRIPT = re.compile(r"/(wp-login|xmlrpc|wp-cron|wp-signup|wp-activate|wp-trackback|wp-comments-post)\.php$")
_ADMIN = re.compile(r"/wp-admin/(?:(?:network|user)/)?([a-z0-9-]{1,40}\.php)?$")
_ARCHIVES = (("/category/", "category"), ("/tag/", "tag"), ("/author/", "author"))
_SCRIPTS = {
    "wp-cron": "cron",
    "xmlrpc": "xmlrpc",
    "wp-signup": "signup",
    "wp-activate": "activate",
    "wp-trackback": "trackback",
    "wp-comments-post": "comment",
}
_QUERY_PAGES = (
    ("p", "single"),
    ("page_id", "page"),
    ("attachment_id", "attachment"),
    ("cat", "category"),
    ("tag", "tag"),
    ("author", "author"),
    ("m", "date"),
    ("year", "date"),
    ("post_type", "archive"),
)
_WORD = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")
_VERSION = re.compile(r"v\d{1,3}")
_HEX = re.compile(r"[0-9a-fA-F-]{16,}")
_MAX_SEGMENTS = 10


@dataclass(slots=True)
class Page:
    """Data about a request from its span."""

    method: str = ""
    path: str = ""
    query: str = ""
    status: int = 0
    admin: bool = False
    cron: bool = False


class Routes:
    """Names pages, with a bounded number of names."""

    __slots__ = ("_details", "_limit")

    def __init__(self, limit: int = MAX_DETAILS) -> None:
        """Use at most `limit` details; names of further pages have none."""
        self._limit = limit
        self._details: set[str] = set()

    def name(self, page: Page) -> tuple[str, str]:
        """Return the type of the request and its route: `("rest", "rest /wp/v2/posts/{id}")`."""
        type_, detail = _classify(page)
        if detail and detail not in self._details:
            if len(self._details) >= self._limit:
                return type_, type_ if type_ != "front" else "other"
            self._details.add(detail)
        if type_ == "front":
            return type_, detail
        return type_, f"{type_} {detail}" if detail else type_


def _classify(page: Page) -> tuple[str, str]:  # noqa: PLR0911 - one for each kind of request
    path = unquote(page.path) or "/"
    query = dict(parse_qsl(page.query[:4096], keep_blank_values=True, max_num_fields=200)) if page.query else {}
    if page.cron or path.endswith("/wp-cron.php"):
        return "cron", ""
    if not page.path and not page.method:
        return "cli", ""
    if script := _SCRIPT.search(path):
        if script[1] == "wp-login":
            action = query.get("action", "")
            return "login", action if action in _LOGIN or action in _RESET else ""
        return _SCRIPTS[script[1]], ""
    if path.endswith("/wp-admin/admin-ajax.php"):
        action = query.get("action", "")
        return "ajax", action if _WORD.fullmatch(action) else ""
    if admin := _ADMIN.search(path):
        return "admin", admin[1] or "index.php"
    route = rest_route(path, query)
    if route:
        return "rest", route
    return ("admin", "") if page.admin else ("front", _front(path, query, page.status))


def rest_route(path: str, query: dict[str, str]) -> str:
    """Return the route of a REST request, with placeholders like `{id}` for variable parts; "" for other requests."""
    route = query.get("rest_route", "")
    if not route:
        _, found, rest = path.partition("/wp-json")
        if not found or (rest and not rest.startswith("/")):
            return ""
        route = rest or "/"
    segments = [_segment(each) for each in route.strip("/").split("/")[:_MAX_SEGMENTS]]
    return "/" + "/".join(segments)


def _segment(text: str) -> str:
    if text.isdigit():
        return "{id}"
    if _HEX.fullmatch(text):
        return "{hash}"
    if not text or _WORD.fullmatch(text) or _VERSION.fullmatch(text):
        return text
    return "{value}"


def _front(path: str, query: dict[str, str], status: int) -> str:  # noqa: C901, PLR0911 - one for each kind of page
    if status == 404:  # noqa: PLR2004 - not found
        return "404"
    if "feed" in query or _FEED.search(path):
        return "feed"
    if "s" in query or "/search/" in path:
        return "search"
    for key, name in _QUERY_PAGES:
        if query.get(key):
            return name
    name = path.rpartition("/")[2]
    if name.startswith("wp-sitemap") or "sitemap" in query:
        return "sitemap"
    if name in ("robots.txt", "favicon.ico"):
        return name.partition(".")[0]
    for part, archive in _ARCHIVES:
        if part in path:
            return archive
    if _DATE.search(path):
        return "date"
    if _DATED_POST.search(path):
        return "single"
    return "front" if _FRONT.fullmatch(path) else "singular"
