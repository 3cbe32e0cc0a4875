"""Normalize SQL: replace values by `?`, so that equal statements become one, and no personal data remains."""

from __future__ import annotations

import re

MAX_LENGTH = 8192
"""Maximum number of characters of a statement that are processed."""
MAX_SHAPE = 2000
"""Maximum number of characters of a result."""

# All quantifiers are possessive, so that a megabyte in quotes takes one pass. An unterminated string extends to the
# end, because its rest is a value, too.
_LITERAL = re.compile(
    r"""
    (?P<name> `[^`]*+(?:`|\Z) )
    | (?P<space> /\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z) | (?:--\s|\#)[^\n]*+ | \s{2,}+ | [^\S ] )
    | '(?:[^'\\]++|\\.|'')*+(?:'|\\?\Z)
    | "(?:[^"\\]++|\\.|"")*+(?:"|\\?\Z)
    | (?<![\w.$])(?:0x[0-9a-f]++|\d++(?:\.\d*+)?+(?:e[+-]?\d++)?+)(?![\w$])
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_LIST = re.compile(r"\(\s*+\?(?:\s*+,\s*+\?)*+\s*+\)")
_ROWS = re.compile(r"(VALUES\s*+\(\?\))(?:\s*+,\s*+\(\?\))++", re.IGNORECASE)
_SPACES = re.compile(r" {2,}+")
_OPTION = re.compile(r"SELECT option_value FROM `?\w+`? WHERE option_name = \?", re.IGNORECASE)


def shape(statement: str) -> str:
    """Normalize a statement: for example `SELECT * FROM wp_posts WHERE ID IN (?)` for any number of ids."""
    text = _LITERAL.sub(_placeholder, statement[:MAX_LENGTH])
    if "?" in text:
        text = _ROWS.sub(r"\1", _LIST.sub("(?)", text))
    return _SPACES.sub(" ", text).strip()[:MAX_SHAPE]


def is_option(statement: str) -> bool:
    """Return whether a statement looks up one option.

    Options without autoload are read one by one, which is no N+1 problem.
    """
    return _OPTION.match(statement) is not None


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return "?" if kind is None else " " if kind == "space" else found[0]
