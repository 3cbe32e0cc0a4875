"""Snippets in documentation, found."""

from __future__ import annotations

import re
import textwrap


def fenced(text, language):
    """Return (line, block) of every fenced block of a language in Markdown."""
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 2, textwrap.dedent(match[2])) for match in pattern.finditer(text)]
