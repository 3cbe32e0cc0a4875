import pytest

from otelwp_agent.component import Kind
from otelwp_agent.errors import ConfigError
from otelwp_agent.testing.examples import CatalogWith, example, plan_of, strings_in
from tests.testing import acme


def test_the_block_below_example_is_found():
    assert example(acme.__doc__) == "processors:\n  acme:\n    remove: [shop.secret, shop.token]\n"
    with pytest.raises(ValueError, match="no block `Example::`"):
        example("Nothing.")


def test_a_component_need_not_be_installed(tmp_path):
    snippet = example(acme.__doc__)
    plan = plan_of(snippet, tmp_path, CatalogWith(acme.FACTORY))
    assert [str(identifier) for kind, identifier in plan.components if kind is Kind.PROCESSOR] == ["acme"]
    assert [*plan.pipelines] == ["traces"], "a pipeline for each of its signals"
    with pytest.raises(ConfigError, match="there is no processor of type `acme`"):
        plan_of(snippet, tmp_path)


def test_the_catalog_includes_shipped_components():
    catalog = CatalogWith(acme.FACTORY)
    assert {"acme", "batch"} <= {*catalog.names(Kind.PROCESSOR)}
    assert "acme" not in catalog.names(Kind.EXPORTER)
    assert catalog.get(Kind.EXPORTER, "acme") is None


def test_missing_sections_of_a_snippet_are_added(tmp_path):
    plan = plan_of("receivers: {otlp: {protocols: {grpc: }}}\nconnectors: {forward: }\n", tmp_path)
    assert {identifier.type for _, identifier in plan.components} == {"otlp", "forward", "debug"}
    plan = plan_of("service: {pipelines: {logs: {receivers: [otlp], exporters: [debug]}}}\n", tmp_path)
    assert [*plan.pipelines] == ["logs"]
    plan = plan_of("extensions: {health_check: {endpoint: '${env:ADDRESS}'}}\n", tmp_path)
    assert [str(identifier) for identifier in plan.extensions] == ["health_check"]


def test_every_string_is_found():
    assert [*strings_in({"a": ["b", {"c": 1}], "d": "e", "f": None})] == ["a", "b", "c", "d", "e", "f"]
