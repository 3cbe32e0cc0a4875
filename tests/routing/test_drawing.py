from __future__ import annotations

from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.drawing import FILTERED, dot, mermaid
from otelwp_agent.routing.parser import parse
from otelwp_agent.routing.table import RoutingRule, RoutingTable


def table(default=("traces/rest",)):
    rules = [
        RoutingRule("rule 1", parse('name == "<b>#1"', "span", Signal.TRACES), ("traces/a", "traces/b"), copies=True),
        RoutingRule("rule 2", parse("duration_ms > 5", "span", Signal.TRACES), ("traces/a",)),
    ]
    return RoutingTable(rules, default)


def test_mermaid():
    assert mermaid(table()).splitlines() == [
        "flowchart LR",
        "  items([items])",
        '  items --> rule1["name == #quot;#lt;b#gt;#35;1#quot;"]',
        '  rule1 -->|"copy"| to0["traces/a"]',
        '  rule1 -->|"copy"| to1["traces/b"]',
        '  rule1 -->|"else"| rule2["duration_ms #gt; 5"]',
        '  rule2 -->|"yes"| to0["traces/a"]',
        '  rule2 -->|"else"| to2["traces/rest"]',
    ]


def test_graphviz():
    drawn = dot(table(default=()))
    assert '  rule1 [label = "name == \\"<b>#1\\"", shape = box];' in drawn
    assert f'  to2 [label = "{FILTERED}", shape = box];' in drawn
    assert drawn.startswith("digraph routing {")
    assert drawn.endswith("}\n")
