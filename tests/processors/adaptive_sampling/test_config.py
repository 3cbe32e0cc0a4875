"""Valid settings load, invalid ones are refused with their position and a remedy."""

import pytest
from pydantic import ValidationError

from otelwp_agent.config.load import Source, load
from otelwp_agent.errors import ConfigError
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.processors.adaptive_sampling import Config
from otelwp_agent.sampling.adaptive.policy import GIB, MONTH, Budget, Ceiling, SiteRule
from tests.kit.graphs import TestCatalog

BUDGET = {"target": {"spans_per_second": 100}}


def config(**settings):
    return Config.model_validate({**BUDGET, **settings})


def refusal(**settings):
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "budget"),
    [
        ({"spans_per_second": 100}, Budget.spans_per_second(100)),
        ({"traces_per_second": 0.5}, Budget.traces_per_second(0.5)),
        ({"bytes_per_day": "50GiB"}, Budget.bytes_per_day(50 * GIB)),
        ({"cost_per_month": 100, "price_per_gib": 0.5}, Budget.cost_per_month(100, 0.5)),
    ],
)
def test_budgets(target, budget):
    assert config(target=target).policy().budget == budget


def test_what_money_buys():
    rate = config(target={"cost_per_month": 100, "price_per_gib": 0.5}).policy().budget.rate
    assert rate * MONTH / GIB == pytest.approx(200)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({}, "there is no budget"),
        ({"spans_per_second": 0}, "greater than 0"),
        ({"traces_per_second": -1}, "greater than 0"),
        ({"spans_per_second": 1, "traces_per_second": 1}, "exclude each other"),
        ({"cost_per_month": 5}, "set both"),
        ({"spans_per_second": 1, "price_per_gib": 5}, "set both"),
        ({"spans_per_second": float("inf")}, "finite"),
    ],
)
def test_invalid_budgets(target, words):
    assert words in refusal(target=target)


def test_target_per_key_must_not_exceed_target():
    assert "no key can have more" in refusal(target_per_key={"spans_per_second": 101})
    assert "must have the same unit" in refusal(target_per_key={"traces_per_second": 1})
    assert config(target_per_key={"spans_per_second": 10}).policy().key_budget == Budget.spans_per_second(10)


def test_settings_that_drop_nothing_are_refused():
    assert "drop nothing" in refusal(target=None)
    assert config(target=None, drop={"bots": True}).policy().budget is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "not a valid attribute name"),
        (" http.route", "not a valid attribute name"),
        ("http.rout", "the attribute is 'http.route'"),
        ("service_name", "the attribute is 'service.name'"),
        ("name", "`span.name`"),
        ("trace_id", "different for every trace"),
        ("duration", "always_keep.slow"),
    ],
)
def test_invalid_attribute_names_are_refused(name, words):
    assert words in refusal(per=["host.name", name])
    assert words in refusal(drop={"rules": [{"name": "x", "attributes": {name: ["y"]}}]})


@pytest.mark.parametrize("name", ["http.route", "acme.customer.tier", "span.name", "env", "http.method"])
def test_attributes_of_ones_own(name):
    assert config(per=[name]).per == [name]


def test_attributes_twice():
    assert "'a' occurs twice" in refusal(per=["a", "a"])


def test_always_keep():
    always = config(
        always_keep={
            "errors": {"ceiling": 0.5, "traces_per_second": 20},
            "slow": {"above": "2s"},
            "first_seen": {"enabled": False},
            "debug": {"enabled": False},
        }
    ).policy().always  # fmt: skip
    assert always.errors == Ceiling(0.5, 20)
    assert (always.slow.above, always.slow.percentile) == (2.0, None)
    assert (always.first.traces, always.first.release_traces) == (0, 10)
    assert always.debug is None
    assert config().policy().always.slow.percentile == 99


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"errors": {"ceiling": 1.1}}, "less than or equal to 1"),
        ({"errors": {"ceiling": 0.9}}, "add up to 115% of the budget"),
        ({"slow": {"above": "1s", "percentile": 95}}, "exclude each other"),
        ({"slow": {"percentile": 100}}, "less than 100"),
        ({"releases": {"ceiling": 0.1}}, "under the ceiling of first_seen"),
        ({"releases": {"attribute": "service.versions"}}, "the attribute is 'service.version'"),
    ],
)
def test_invalid_always_keep_settings(keep, words):
    assert words in refusal(always_keep=keep)


def test_rules_by_site():
    rules = [{"keep": 0.1}, {"above": 10000, "keep": 0.001}, {"above": 10000, "keep": 0.002, "sites": ["a.example"]}]
    policy = config(sites={"rules": rules, "minimum": 36, "ceiling": 0.4}).policy()
    assert policy.site_rules[1] == SiteRule(0.001, 10000 / 3600, None)
    assert policy.site_rules[2].sites == {"a.example"}
    assert (policy.site_minimum, policy.site_ceiling) == (0.01, Ceiling(0.4))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"above": 10, "keep": 0.1}, {"above": 10, "keep": 0.2}], "keep is 0.1 and 0.2"),
        ([{"above": 10, "keep": 0.1}, {"above": 100, "keep": 0.2}], "never applies"),
        ([{"keep": 0.1, "sites": ["a", "b"]}, {"keep": 0.2, "sites": ["b"]}], "keep is 0.1 and 0.2"),
        ([{"keep": 2}], "less than or equal to 1"),
        ([{"keep": 0.1, "sites": []}], "at least 1"),
    ],
)
def test_rules_that_contradict_each_other(rules, words):
    assert words in refusal(sites={"rules": rules})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decision_wait": "1m"}, "decision_wait is above max_wait"),
        ({"max_trace_bytes": "1GiB"}, "max_trace_bytes is above max_bytes"),
        ({"power": 2}, "less than or equal to 1"),
        ({"mode": "try"}, "'enforce' or 'dry_run'"),
        ({"drop": {"rules": [{"name": "bot", "attributes": {"a": ["b"]}}]}}, "two rules have the name 'bot'"),
        ({"drop": {"rules": [{"name": "x", "attributes": {}}]}}, "at least 1"),
        ({"drop": {"rules": [{"name": "x", "attributes": {"a": []}}]}}, "at least one pattern"),
    ],
)
def test_settings_that_contradict_each_other(settings, words):
    assert words in refusal(**settings)


def test_errors_have_their_position():
    yaml = """
receivers: {otlp: {protocols: {http: }}}
processors:
  adaptive_sampling:
    target: {spans_per_second: 100}
    per:
      - http.rout
      - service.name
      - duration
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], processors: [adaptive_sampling], exporters: [debug]}}}
"""
    with pytest.raises(ConfigError) as caught:
        make_plan(load([Source.parse(f"yaml:{yaml}")]), TestCatalog())
    found = [(problem.path, problem.line) for problem in caught.value.problems]
    assert found == [("processors.adaptive_sampling.per[0]", 7), ("processors.adaptive_sampling.per[2]", 9)]
