"""Draw a table of rules, as text for Mermaid and Graphviz."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.routing.table import RoutingTable

FILTERED = "filtered out"
"""Label of the end of items that nothing takes."""
_START = "items"


class _Arrow(NamedTuple):
    source: str
    """Node that it comes from."""
    label: str
    node: str
    """Node that it points to."""
    text: str
    """Text of this node: a condition or a pipeline."""


def mermaid(table: RoutingTable) -> str:
    """Return the table as a Mermaid flowchart."""
    lines = ["flowchart LR", f"  {_START}([items])"]
    for arrow in _arrows(table):
        label = f'|"{_escaped(arrow.label)}"|' if arrow.label else ""
        lines.append(f'  {arrow.source} -->{label} {arrow.node}["{_escaped(arrow.text)}"]')
    return "\n".join(lines) + "\n"


def dot(table: RoutingTable) -> str:
    """Return the table in Graphviz's language."""
    lines = ["digraph routing {", "  rankdir = LR;", f'  {_START} [label = "items", shape = oval];']
    for arrow in _arrows(table):
        lines.append(f"  {arrow.node} [label = {json.dumps(arrow.text, ensure_ascii=False)}, shape = box];")
        lines.append(f"  {arrow.source} -> {arrow.node} [label = {json.dumps(arrow.label, ensure_ascii=False)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _arrows(table: RoutingTable) -> Iterator[_Arrow]:
    nodes: dict[str, str] = {}
    source = _START
    for number, rule in enumerate(table.rules, 1):
        node = f"rule{number}"
        yield _Arrow(source, "" if source == _START else "else", node, rule.condition.text)
        for target in rule.targets:
            yield _Arrow(node, "copy" if rule.copies else "yes", nodes.setdefault(target, f"to{len(nodes)}"), target)
        source = node
    for target in table.default or (FILTERED,):
        yield _Arrow(source, "else" if table.rules else "", nodes.setdefault(target, f"to{len(nodes)}"), target)


def _escaped(text: str) -> str:
    """Return a text for a quoted label of Mermaid, in which it reads no markup."""
    for mark, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(mark, entity)
    return text
