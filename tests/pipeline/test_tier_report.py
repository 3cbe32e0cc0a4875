import pytest

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.tier_report import report_tiers
from otelwp_agent.tier import Tier
from tests.pipeline.test_plan_bodies import ACCEPTED, configuration, line_of, refused


def report(pipelines):
    document = load([f"yaml:{configuration('enterprise', pipelines)}"], (), {})
    return report_tiers(make_plan(document, Catalog()), document)


def test_parts_are_in_the_order_of_the_file_with_the_settings_that_need_a_tier():
    found = report("traces: otlp > probabilistic_sampler/half, batch > jaeger, debug")
    text = configuration("enterprise", "traces: otlp > probabilistic_sampler/half, batch > jaeger, debug")
    assert [(part.name, part.tier.value) for part in found.used] == [
        ("receivers.otlp", "free"),
        ("processors.probabilistic_sampler/half", "free"),
        ("processors.probabilistic_sampler/half.sampling_percentage", "pro"),
        ("processors.batch", "pro"),
        ("exporters.jaeger", "free"),
        ("exporters.debug", "free"),
    ]
    assert [part.place.line for part in found.used] == [line_of(text, part.name) for part in found.used]


@pytest.mark.parametrize(("tier", "pipelines"), ACCEPTED)
def test_a_tier_enables_all_exactly_if_a_file_that_states_it_is_accepted(tier, pipelines):
    found = report(pipelines)
    for each in Tier:
        assert found.enables(each) == (refused(configuration(each.value, pipelines)) == [])
    assert found.needed.enables(found.needed)
    assert Tier(tier).enables(found.needed)
