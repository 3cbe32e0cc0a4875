"""Redact secrets in URLs, so that URLs can be printed and logged.

Vendors put keys in URLs: `https://api.example/v1/<key>/spans?api_key=<key>`, `https://user:password@host`. User
information, the values of the query, the fragment, and path segments that look like a token are replaced. Scheme, host,
port and readable path segments are kept, so that the endpoint can be recognised. Redaction is idempotent.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MASK = "***"
"""Text that replaces a secret. It has no characters that end a host or a path, so that the result is still a URL."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'`<>|\\]+")
"""A URL in running text, up to white space or a quotation mark."""
_PATH = re.compile(r"(?<![\w/.:*-])/[^\s\"'`<>|\\]+")
"""An absolute path, with its query, in running text."""
_CLOSING = ".,;:!)]}"
"""Characters that end a sentence or a bracket when they follow a URL in running text."""

_LONG = 32
"""Shortest length of a word without separators that is always redacted, in characters."""
_SUSPECT = 16
"""Shortest length of a word that is redacted if it mixes letters and digits, or upper and lower case, in characters."""
_DIGITS = 20
"""Shortest length of a number that is redacted, in digits; account and project numbers are shorter."""
_MIXED = 0.3
"""Changes between upper and lower case per character, above which a word is not CamelCase."""
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z0-9%]+")
_RUNS = re.compile(r"[A-Za-z]+|[0-9]+")


def redact_url(url: str) -> str:
    """Return `url` without its secrets. The scheme is optional (`host:port/path`); a unix socket's path is kept."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if url.lstrip().startswith("unix:"):
        return url
    rest, hash_, fragment = rest.partition("#")
    rest, mark, query = rest.partition("?")
    end = _authority_end(rest)
    authority, path = rest[:end], rest[end:]
    user, at, host = authority.rpartition("@")
    return "".join(
        (
            scheme,
            separator,
            MASK if user else "",
            at,
            host,
            redact_path(path),
            mark,
            _redact_query(query),
            hash_,
            MASK if fragment else "",
        )
    )


def redact_path(path: str) -> str:
    """Return the path of a URL with each segment that looks like a token replaced by `***`."""
    return "/".join(MASK if looks_like_token(segment) else segment for segment in path.split("/"))


def redact_text(text: str, *, paths: bool = False) -> str:
    """Return `text` with every URL in it redacted; with `paths`, absolute paths and their queries too."""
    if "://" in text:
        text = _URL.sub(lambda found: _in_text(found[0], redact_url), text)
    if paths and "/" in text:
        text = _PATH.sub(lambda found: _in_text(found[0], _redact_target), text)
    return text


def looks_like_token(segment: str) -> bool:
    """Whether a path segment is more likely a key than a name: long, and without readable words.

    Words are separated by `-`, `_`, `.` and similar characters: `otlp-http-production` has three.
    """
    if _UUID.search(segment):
        return True
    words = _WORDS.findall(segment)
    if any(_is_random(word) for word in words):
        return True
    joined = "".join(words)  # a key in groups: `a1b2-c3d4-e5f6-…`
    return len(joined) >= _SUSPECT and sum(map(_is_mixed, words)) >= 2 and _is_random(joined)  # noqa: PLR2004 - groups


def _is_random(word: str) -> bool:
    if word.isdigit():
        return len(word) >= _DIGITS
    if len(word) >= _LONG:
        return True
    if len(word) < _SUSPECT:
        return False
    if len(_RUNS.findall(word)) > 2:  # noqa: PLR2004 - `cluster2024` is two runs, a key has more
        return True
    cases = [char.isupper() for char in word if char.isalpha()]
    changes = sum(before != after for before, after in itertools.pairwise(cases))
    return changes >= _MIXED * len(word)


def _is_mixed(word: str) -> bool:
    """Whether a group of a key mixes letters and digits more than a name with a number (`cluster2024`) does."""
    return len(_RUNS.findall(word)) > 2  # noqa: PLR2004 - see `_is_random`


def _authority_end(rest: str) -> int:
    """Return the index at which host and port end. An unescaped `/` in a password does not start the path."""
    at = rest.rfind("@")
    slash = rest.find("/", at + 1)
    return slash if slash >= 0 else len(rest)


def _redact_query(query: str) -> str:
    if not query:
        return ""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(f"{name}={MASK}" if equals else MASK if name else "" for name, equals, _ in pairs)


def _redact_target(target: str) -> str:
    path, mark, query = target.partition("?")
    return redact_path(path) + mark + _redact_query(query)


def _in_text(found: str, redact: Callable[[str], str]) -> str:
    """Apply `redact` to a URL or path found in text, without the punctuation that follows it."""
    bare = found.rstrip(_CLOSING)
    return redact(bare) + found[len(bare) :]
