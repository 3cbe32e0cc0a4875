"""Find phrases that make the documentation, comments and messages hard to read, and name a plain replacement.

It reads docstrings, comments and string literals of Python, comments of C and PHP, and the text of Markdown pages
outside code blocks. Decisions (docs/adr) and the changelog are history and are not checked.

Usage: `python tools/english.py [PATH …]`, the whole repository without a path. Prints `file:line: phrase: replacement`
and exits 1 if it found anything. Run by `make check`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("otelwp_agent", "benchmarks", "tools", "docs", "examples", "README.md", "CONTRIBUTING.md", "SECURITY.md")
NOT_CHECKED = ("docs/adr", "tools/english.py")

PHRASES: dict[str, str] = {
    r"hand(s|ed|ing)? (\w+ )?on\b": "forward",
    r"\btells?\b (?!apart)|\btelling\b|\btold\b(?! apart)": "report, return, log, inform",
    r"\btold apart\b|\btells? apart\b": "distinguish",
    r"\bsay(s|ing)? (yes|no|so)\b": "accept, refuse, report",
    r"\b(no|enough|has|have|is|find|finds|make|makes|without|more|little) room\b|\broom (for|left|is|that|to|of)\b": (
        "capacity, space"
    ),
    r"\bst(and|ands|anding|ood) (around|beside|behind|before|between|in|at|there|below|above|alone|on)\b": (
        "is, is in, wraps, precedes"
    ),
    r"\bthat is none\b|\bis no (number|state|trace|id|address|path)\b": "invalid",
    r"\b(no|some|any|every)body\b|\bwhoever\b": "sender, client, reader, user, nothing; name the subject",
    r"\bgo(es|ing)? on\b|\bwent on\b": "continue",
    r"\bbec(omes?|ame) of\b": "name the result",
    r"\banew\b": "again, from the start",
    r"\bmend(s|ed|ing)?\b": "repair, correct",
    r"\blet(s|ting)? go of\b": "release, drop",
    r"\bthe other side\b": "the backend, the destination, the peer",
    r"\bis away\b|\bare away\b": "is unreachable",
    r"\ba say\b|\bno opinion\b": "name the effect",
    r"\b(code|module|journal|agent|it|queue|sender|class) knows\b": "has, contains, reads",
    r"\blies? in\b|\blay in\b": "is in, is stored in",
    r"\bby and by\b|\bas good as\b|\bnowhere\b|\bfor certain\b": "use a plain term",
    r"\bmuch as\b|\bsuch as has\b": "use a plain term",
}
INVERTED = re.compile(r"(What|Where|Who|Whose|Whom|That which)\b")
"""A docstring's first word that makes a riddle of its subject: `What a queue holds.`"""
_ALL = [(re.compile(pattern, re.IGNORECASE), plain) for pattern, plain in PHRASES.items()]
_C_COMMENT = re.compile(
    r"/\*.*?\*/|(?<![:\w])//[^\n]*|(?<![\w&#])#(?!\s*(?:include|define|if|else|endif|undef|pragma))[^\n]*", re.DOTALL
)
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL)


def problems(text: str, first_line: int = 1) -> Iterator[tuple[int, str]]:
    """Yield (line, message) for each phrase in `text`."""
    for pattern, plain in _ALL:
        for found in pattern.finditer(text):
            yield first_line + text.count("\n", 0, found.start()), f"“{found[0].strip()}”: {plain}"


def python_problems(source: str) -> Iterator[tuple[int, str]]:
    """Yield problems in the docstrings, comments and string literals of Python source."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from problems(token.string, token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from problems(_CODE.sub("", node.value), node.lineno)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found = INVERTED.match(node.value.value)
            if found:
                yield node.lineno, f"“{found[0]} …” begins a docstring: begin with a verb or with the thing itself"


def markdown_problems(text: str) -> Iterator[tuple[int, str]]:
    """Yield problems in the text of a Markdown page, outside code."""
    blank = lambda found: "\n" * found[0].count("\n")  # noqa: E731 - keeps line numbers
    return problems(_CODE.sub(blank, _FENCE.sub(blank, text)))


def comment_problems(source: str) -> Iterator[tuple[int, str]]:
    """Yield problems in the comments of C or PHP source."""
    for found in _C_COMMENT.finditer(source):
        yield from problems(found[0], 1 + source.count("\n", 0, found.start()))


READERS = {
    ".py": python_problems,
    ".md": markdown_problems,
    ".c": comment_problems,
    ".h": comment_problems,
    ".php": comment_problems,
}


def files(paths: list[str]) -> Iterator[Path]:
    """Yield the files to read below `paths`, relative to the repository."""
    for name in paths or FOLDERS:
        path = ROOT / name
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            relative = each.relative_to(ROOT).as_posix()
            generated = each.name.endswith("_pb2.py")
            if each.suffix in READERS and each.is_file() and not generated and not relative.startswith(NOT_CHECKED):
                yield each


def main(paths: list[str]) -> int:
    """Check the files; return 1 if a phrase was found."""
    found = 0
    for path in files(paths):
        for line, message in sorted(set(READERS[path.suffix](path.read_text("utf-8")))):
            print(f"{path.relative_to(ROOT)}:{line}: {message}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
