"""The text of a configuration for another tier: it is valid there, and comments stay."""

from pathlib import Path

import pytest

from otelwp_agent.cli.tier_migration import migrated
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.tier import Tier
from tests.pipeline.test_plan_bodies import ACCEPTED, configuration

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples/docker-compose.yaml"})

FREE = """\
receivers:
    otlp: {protocols: {http: {}}}
exporters:
    jaeger: {endpoint: "localhost:4317"}
service:
    tier: free
    pipelines:
        traces:
            receivers: [otlp]
            # no processors
            exporters: [jaeger]
"""


FLAT = "receivers: {zipkin: }\nexporters: {jaeger: {endpoint: 'a:1'}}\n"
PIPELINES = "service::pipelines: {traces: {receivers: "


def to(tier, text, catalog=None):
    catalog = catalog or Catalog()
    document = load([f"yaml:{text}"], (), {})
    service = document.root.get("service")
    if isinstance(service.value, dict):
        service.value.pop("tier", None)
    return migrated(text, make_plan(document, catalog), document, Tier(tier))


def without_comments(text):
    return [line.partition(" #")[0].strip() for line in text.splitlines() if not line.strip().startswith("#")]


@pytest.mark.parametrize("tier", ["free", "pro", "enterprise"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_after_a_migration_or_it_is_told_what_cannot_be_left_out(example, tier, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = example.read_text()
    try:
        changed = to(tier, text)
    except ConfigError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert tier != "enterprise"
        assert all("cannot be left out" in problem.message and problem.line for problem in refusal.problems)
        return
    plan = make_plan(load([f"yaml:{changed}"], (), {}), Catalog())
    assert plan.service.tier == tier
    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert [comment for comment in comments if comment not in changed] == []


@pytest.mark.parametrize(("tier", "pipelines"), ACCEPTED)
def test_pipelines_stay_valid_on_the_tier_below(tier, pipelines):
    below = {"enterprise": "pro", "pro": "free", "free": "free"}[tier]
    try:
        changed = to(below, configuration(tier, pipelines), Catalog())
    except ConfigError as error:
        changed, refusal = "", error
    if not changed:
        assert all("cannot be left out" in problem.message for problem in refusal.problems)
        return
    make_plan(load([f"yaml:{changed}"], (), {}), Catalog())


def test_from_free_upwards_pipelines_get_a_batch_processor():
    changed = to("pro", FREE)
    assert without_comments(changed) == [
        "receivers:",
        "otlp: {protocols: {http: {}}}",
        "exporters:",
        'jaeger: {endpoint: "localhost:4317"}',
        "service:",
        "tier: pro",
        "pipelines:",
        "traces:",
        "receivers: [otlp]",
        "processors: [batch]",
        "exporters: [jaeger]",
        "processors:",
        "batch:",
        "send_batch_size: 50",
        "timeout: 5s",
    ]
    assert to("pro", FREE.replace("tier: free", "tier: pro")).count("batch") == 0


def test_a_batch_processor_goes_before_what_encodes():
    text = configuration("free", "traces: otlp > memory_limiter, compression > otlp_http")
    changed = to("pro", text, Catalog())
    plan = make_plan(load([f"yaml:{changed}"], (), {}), Catalog())
    assert [str(each) for each in plan.pipelines["traces"].processors] == ["memory_limiter", "batch", "compression"]


@pytest.mark.parametrize("percentage", ["25", "'25'", "2.5e1", "${env:NONE:-25}"])
def test_a_percentage_above_the_ceiling_becomes_the_ceiling(percentage):
    text = configuration("pro", "traces: otlp > probabilistic_sampler/half > jaeger").replace(
        "age: 50\n", f"age: {percentage}\n"
    )
    assert "probabilistic_sampler/half:\n    sampling_percentage: 10\n" in to("free", text, Catalog())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            configuration("pro", "traces: otlp > > otlp_http"),
            "exporters.otlp_http: tier `free` does not enable this, and it cannot be left out: pipeline",
        ),
        (
            f"{FLAT}processors: {{batch: }}\n{PIPELINES}[zipkin], processors: [batch], exporters: [jaeger]}}}}\n",
            "`batch` must be written in the list `service.pipelines.traces.processors` to be left out",
        ),
        (
            f"{FLAT}{PIPELINES}[zipkin], exporters: [jaeger]}}}}\n",
            "`service` must be written as nested maps to be changed",
        ),
    ],
)
def test_what_cannot_be_changed_is_told(text, told):
    with pytest.raises(ConfigError) as caught:
        to("free", text, Catalog())
    assert told in str(caught.value)
