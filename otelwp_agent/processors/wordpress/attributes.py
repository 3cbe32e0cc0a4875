"""Edit attributes, with a cache by their bytes, because WordPress sends equal attributes with every page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode, encode
from otelwp_agent.processors.wordpress import redaction, sql
from otelwp_agent.processors.wordpress.routes import Page

if TYPE_CHECKING:
    from otelwp_agent.model.attributes import Raw
    from otelwp_agent.processors.wordpress.redaction import Redactor

    Facts = dict[str, object]
    """Values of a span's attributes, by the names in `FACTS`."""

REMEMBERED = 2048
"""Maximum number of cached attributes; when it is reached, all are removed."""
REMEMBERED_SIZE = 1024
"""Maximum size of a cached attribute in bytes; with `REMEMBERED` this bounds the memory."""

FACTS = {
    "http.request.method": "method",
    "http.method": "method",
    "url.path": "path",
    "url.query": "query",
    "url.full": "url",
    "http.url": "url",
    "http.target": "url",
    "http.response.status_code": "status",
    "http.status_code": "status",
    "wp.is_admin": "admin",
    "wp.doing_cron": "cron",
    "http.route": "route",
    "wordpress.site.id": "site_id",
    "wordpress.blog_id": "site_id",
    "wp.blog_id": "site_id",
    "blog_id": "site_id",
    "wordpress.site.host": "site_host",
    "wordpress.plugin": "plugin",
    "wordpress.theme": "theme",
}
"""Names of the facts that the processor reads, by attribute."""

_CODE = frozenset({"code.file.path", "code.filepath"})
_IN_WORDPRESS = re.compile(r"(?:^|.*/)(wp-(?:content|includes|admin)/.*)", re.DOTALL)
_AT_ROOT = re.compile(r"/(?:[^/]+/)*((?:wp-[a-z-]+|index|xmlrpc)\.php)")
_EXTENSION = re.compile(r"wp-content/(plugins|mu-plugins|themes)/([^/]{1,100})")
_LOGGED_IN = frozenset({"wp.user_id", "wordpress.user_id", "wordpress.user.id"})


class Known:
    """Result for an attribute: its fact, its replacement and an additional attribute.

    `new` replaces the attribute (`None`: it stays unchanged), `added` follows it.
    """

    __slots__ = ("added", "fact", "new", "value")

    def __init__(
        self,
        fact: str = "",
        value: Raw = None,
        new: tuple[bytes, ...] | None = None,
        added: tuple[str, bytes] = ("", b""),
    ) -> None:
        """Store the result; `added` is the name of a fact, which must not exist yet, and a serialized attribute."""
        self.fact = fact
        self.value = value
        self.new = new
        self.added = added


PLAIN = Known()
"""Result for an attribute that stays unchanged and has no fact."""


def key_value(key: str, value: Raw) -> bytes:
    """Return a serialized KeyValue."""
    return _key_value(key, encode(value))


def _key_value(key: str, value: bytes) -> bytes:
    return pb.KeyValue(key=key.encode(), value=value).SerializeToString()


class AttributeEditor:
    """Edits serialized KeyValues. Without a `redactor` values stay unchanged; `code` makes paths relative."""

    __slots__ = ("_code", "_known", "_redactor", "_sql")

    def __init__(self, redactor: Redactor | None, *, code: bool = True, sql_literals: bool = False) -> None:
        """Start with an empty cache; `sql_literals` keeps literals in SQL."""
        self._redactor = redactor
        self._code = code
        self._sql = redactor is not None and not sql_literals
        self._known: dict[bytes, Known] = {}

    def read(self, data: bytes) -> Known:
        """Return the result for an attribute; an invalid attribute stays unchanged."""
        known = self._known.get(data)
        if known is None:
            known = self._read(data)
            if len(data) <= REMEMBERED_SIZE:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[data] = known
        return known

    def _read(self, data: bytes) -> Known:  # noqa: PLR0911 - one for each kind of attribute
        try:
            pair = pb.KeyValue.FromString(data)
        except DecodeError:
            return PLAIN
        key = pair.key.decode(errors="replace")
        value = decode(pair.value)
        if key in redaction.STATEMENTS:
            text = as_string(value)
            shape = sql.shape(text)
            return Known("sql", shape, (key_value(key, shape),) if self._sql and shape != text else None)
        redactor = self._redactor
        if redactor is not None and redactor.hides(key):
            return self._hidden(redactor, key, as_string(value))
        if value.WhichOneof("value") == "array_value" and redactor is not None:
            return self._list(redactor, key, value)
        if value.WhichOneof("value") != "string_value":
            fact = FACTS.get(key, "")
            return Known(fact, _scalar(value)) if fact else PLAIN
        text = value.string_value.decode(errors="replace")
        if key in _CODE:
            return self._path(key, text) if self._code else PLAIN
        new = text
        if redactor is not None:
            new = redactor.url(key, text) if key in redaction.URLS else redactor.text(text)
        fact = FACTS.get(key, "")
        if new == text and not fact:
            return PLAIN
        return Known(fact, text, None if new == text else (key_value(key, new),))

    def _hidden(self, redactor: Redactor, key: str, text: str) -> Known:
        replacement = redactor.replacement(text)
        new = () if replacement is None else (key_value(key, replacement),)
        if key in _LOGGED_IN:
            return Known(new=new, added=("logged_in", key_value("wordpress.user.logged_in", text not in ("", "0"))))
        return Known(new=new)

    @staticmethod
    def _list(redactor: Redactor, key: str, value: pb.AnyValue) -> Known:
        """Redact the strings of an array."""
        changed = False
        for each in value.array_value.values:
            text = each.string_value.decode(errors="replace")
            new = redactor.text(text)
            if new != text:
                each.string_value = new.encode()
                changed = True
        return Known(new=(_key_value(key, value.SerializeToString()),)) if changed else PLAIN

    @staticmethod
    def _path(key: str, text: str) -> Known:
        """Make a path relative to WordPress's folder, and name the plugin or theme that it belongs to."""
        plain = text.replace("\\", "/")
        found = _IN_WORDPRESS.fullmatch(plain) or _AT_ROOT.fullmatch(plain)
        if found is None:
            return PLAIN
        path = found[1]
        new = None if path == text else (key_value(key, path),)
        extension = _EXTENSION.match(path)
        if extension is None:
            return PLAIN if new is None else Known(new=new)
        name = extension[2].removesuffix(".php")
        kind = "theme" if extension[1] == "themes" else "plugin"
        return Known(new=new, added=(kind, key_value(f"wordpress.{kind}", name)))


def _scalar(value: pb.AnyValue) -> Any:  # noqa: ANN401 - a number or boolean
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("int_value", "bool_value", "double_value") else None


def page_of(facts: Facts) -> Page:
    """Return the facts about the page."""
    path, query = str(facts.get("path", "")), str(facts.get("query", ""))
    url = str(facts.get("url", ""))
    if url:
        rest, _, found = url.partition("#")[0].partition("?")
        query = query or found
        if not path:
            host, slash, rest = rest.rpartition("://")[2].partition("/")
            path = slash + rest if host or slash else ""
    method = str(facts.get("method", ""))
    status = facts.get("status", 0)
    return Page(
        method=method if method.isalpha() and method.isupper() and len(method) < 10 else "",  # noqa: PLR2004 - verbs
        path=path,
        query=query,
        status=status if type(status) is int else 0,
        admin=facts.get("admin") is True,
        cron=facts.get("cron") is True,
    )
