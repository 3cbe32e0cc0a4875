"""Remove personal data and secrets from attributes, so that data that leaves a site does not identify visitors.

Removed unless configured otherwise: the values of query parameters for secrets, personal data or search terms; user
ids, logins and names; cookies and credentials in headers; addresses of clients; e-mail addresses, passwords, keys and
tokens in any text; literals in SQL.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from otelwp_agent.telemetry import credentials
from otelwp_agent.telemetry.personal_data import EMAIL

if TYPE_CHECKING:
    from collections.abc import Collection

REDACTED = credentials.MARK

URLS = frozenset(
    {
        "url.full",
        "url.original",
        "url.query",
        "http.url",
        "http.target",
        "http.referer",
        "http.referrer",
        "http.request.header.referer",
        "http.response.header.location",
    }
)
"""Attributes that contain a URL, or the end of one."""
STATEMENTS = frozenset({"db.query.text", "db.statement"})
"""Attributes that contain SQL."""

_PARAMETER = re.compile(
    r"pass|pwd|token|nonce|secret|api_?key|(?:^|[_\-\[])key|auth(?!or)|sig(?:nature)?$|hash|session|mail|phone|user|login"
    r"|card|[_\-\[](?:name|code)\]?$|^(?:code|log|q|s|search|query|ip|(?:first|last|display|full|nick)_?name)$",
    re.IGNORECASE,
)
"""Names of parameters whose values are secrets, personal data or search terms. The plugin has the same list."""
_PERSON = re.compile(
    r"enduser\.|user\.(?:id|name|full_name|email|hash|login|roles)$|(?:wp|wordpress)[._](?:user|customer)(?:[._](?!logged_in)\w+)?$"
    r"|user_?(?:id|login|email)$|client\.address$|http\.client_ip$|net\.(?:sock\.)?peer\.(?:ip|addr)$|network\.peer\.address$"
)
_HEADER = re.compile(
    r"http\.(?:request|response)\.header\..*(?:cookie|auth|nonce|key|token|secret|forwarded|real[_-]ip)|http\.cookies?$"
)
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s?#]++@")


class Redactor:
    """Redacts by removal, or with `hash_key` by keyed hashes.

    Equal values have equal hashes, and nothing can be derived from a hash without the key.
    """

    __slots__ = ("_attributes", "_key", "_parameters")

    def __init__(
        self, hash_key: bytes | None = None, attributes: Collection[str] = (), parameters: Collection[str] = ()
    ) -> None:
        """Redact `attributes` and query `parameters` in addition to the built-in ones."""
        self._key = hash_key
        self._attributes = frozenset(attributes)
        self._parameters = frozenset(each.lower() for each in parameters)

    def hides(self, key: str) -> bool:
        """Return whether the whole attribute is personal data or a secret."""
        return key in self._attributes or _PERSON.match(key) is not None or _HEADER.match(key) is not None

    def replacement(self, value: str) -> str | None:
        """Return the replacement for a redacted value, `None` for nothing."""
        return None if self._key is None else self._digest(value)

    def url(self, key: str, text: str) -> str:
        """Return a URL with its secrets redacted; `url.query` contains only a query."""
        if key == "url.query":
            return self._without_emails(self.query(text))
        base, mark, rest = _CREDENTIALS.sub(f"{REDACTED}@", text).partition("?")
        base = credentials.redact(base)
        if mark:
            query, mark, fragment = rest.partition("#")
            base = f"{base}?{self.query(query)}{mark}{credentials.redact(fragment)}"
        return self._without_emails(base)

    def query(self, query: str) -> str:
        """Return a query string with the values of sensitive parameters redacted."""
        if "=" not in query:
            return query
        return "&".join([self._pair(each) for each in query.split("&")])

    def text(self, text: str) -> str:
        """Return a text without secrets and e-mail addresses."""
        return self._without_emails(credentials.redact(text))

    def _without_emails(self, text: str) -> str:
        return EMAIL.sub(self._email, text) if "@" in text else text

    def _pair(self, pair: str) -> str:
        name, mark, value = pair.partition("=")
        if not value:
            return pair
        plain = unquote_plus(name)
        if plain.lower() not in self._parameters and _PARAMETER.search(plain) is None and not _holds_secret(value):
            return pair
        return f"{name}{mark}{REDACTED if self._key is None else self._digest(unquote_plus(value))}"

    def _email(self, found: re.Match[str]) -> str:
        if found[0].startswith(f"{REDACTED}@"):
            return found[0]  # the rest of a URL's credentials is not an e-mail address
        return "[email]" if self._key is None else f"[email:{self._digest(found[0].lower())}]"

    def _digest(self, value: str) -> str:
        assert self._key is not None  # noqa: S101 - asked by the callers
        return hmac.new(self._key, value.encode(errors="replace"), hashlib.sha256).hexdigest()[:16]


def _holds_secret(value: str) -> bool:
    plain = unquote_plus(value)
    return credentials.redact(plain) != plain
