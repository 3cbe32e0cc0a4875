"""The rules and dashboards in deploy/ use only metrics and labels that the agent publishes."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

import docs
from otelwp_agent.telemetry.metrics import InstrumentKind

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus").glob("*.rules.yaml"))
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
SCRAPED = {"job", "instance", "exported_job", "le"}
"""Labels that Prometheus adds, and that of buckets. `exported_job` is a label `job` of the agent."""
WORDS = {"and", "or", "unless", "by", "on", "without", "bool", "inf"}


@cache
def published():
    """Return the labels of each time series of the agent, by name."""
    found = {"up": set()}
    for name, (instrument, _) in docs.declared_instruments().items():
        parts = ("_bucket", "_sum", "_count") if instrument.kind is InstrumentKind.HISTOGRAM else ("",)
        found |= {name + part: set(instrument.labels) for part in parts}
    return found


def rules(path):
    return [rule for group in yaml.safe_load(path.read_text("utf-8"))["groups"] for rule in group["rules"]]


def known():
    """Return the labels of the series of the agent and of the recording rules, by name."""
    found = dict(published())
    for rule in (rule for path in RULES for rule in rules(path) if "record" in rule):
        by = re.search(r"\bby \(([^)]*)\)", rule["expr"])
        found[rule["record"]] = set(re.findall(r"\w+", by[1])) if by else set()
    return found


def problems(expression, series):
    """Return what is wrong with the names in a PromQL expression; and the labels that its series have."""
    wrong, labels = [], set(SCRAPED)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    text = re.sub(r"\[[^\]]*\]", "", text)
    clauses = re.findall(r"\b(?:by|on|without) *\(([^)]*)\)", text)
    text = re.sub(r"\b(?:by|on|without) *\([^)]*\)", "", text)
    for name, matchers in re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?! *\()(?:\{([^}]*)\})?", text):
        if name in WORDS:
            continue
        if name not in series:
            wrong.append(f"no metric {name}")
            continue
        labels |= series[name]
        unknown = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers)) - series[name] - SCRAPED
        wrong += [f"{name} has no label {label}" for label in sorted(unknown)]
    used = {label for clause in clauses for label in re.findall(r"\w+", clause)}
    return wrong + [f"no label {label}" for label in sorted(used - labels)], labels


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules(path):
    series = known()
    for rule in rules(path):
        wrong, labels = problems(rule["expr"], series)
        texts = " ".join(rule.get("annotations", {}).values())
        assert wrong == [], rule
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels, rule
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards(path):
    series, dashboard = published(), json.loads(path.read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) > 10
    for panel in panels:
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            wrong, labels = problems(target["expr"], series)
            assert wrong == [], panel["title"]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    text = json.dumps([target for panel in panels for target in panel["targets"]])
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"} <= variables.keys()
    for variable in variables.values():
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            wrong, labels = problems(metric, series)
            assert (wrong, label in labels) == ([], True), variable["name"]


def test_the_places_of_panels_do_not_overlap():
    for path in DASHBOARDS:
        taken = set()
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(otelwp_nothing[5m])) > 0", ["no metric otelwp_nothing"]),
        ("histogram_quantile(0.9, otelwp_loop_stall_seconds)", ["no metric otelwp_loop_stall_seconds"]),
        ('plugin_installations_total{site="a"}', ["plugin_installations_total has no label site"]),
        ("max by (site) (plugin_installations_total)", ["no label site"]),
        ('max by (cms) (plugin_installations_total{cms=~"a.*"}) > 1e3 or vector(0)', []),
    ],
)
def test_wrong_names_are_found(expression, wrong):
    assert problems(expression, published())[0] == wrong
