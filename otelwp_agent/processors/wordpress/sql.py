"""SQL without its values: statements of one shape are one statement, and nobody's data stands in it."""

from __future__ import annotations

import re

MAX_LENGTH = 8192
"""Characters of a statement that are looked at."""
MAX_SHAPE = 2000
"""Characters of a shape that are kept."""

# No quantifier gives back what it took, so that a megabyte in quotes costs one pass. A string that is cut off runs to
# the end: its rest is a value, too.
_LITERAL = re.compile(
    r"""
    (?P<name> `[^`]*+(?:`|\Z) )
    | (?P<space> /\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z) | (?:--\s|\#)[^\n]*+ | \s{2,}+ | [\r\n\t] )
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
    """Return `SELECT * FROM wp_posts WHERE ID IN (?)` for any number of ids."""
    text = _LITERAL.sub(_placeholder, statement[:MAX_LENGTH])
    if "?" in text:
        text = _ROWS.sub(r"\1", _LIST.sub("(?)", text))
    return _SPACES.sub(" ", text).strip()[:MAX_SHAPE]


def is_option(statement: str) -> bool:
    """Whether a shape looks up one option: those that are not autoloaded are read one by one, and that is no N+1."""
    return _OPTION.match(statement) is not None


def _placeholder(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return "?" if kind is None else " " if kind == "space" else found[0]
