from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from otelwp_agent.component import ComponentConfig, Factory, KeptPercentage, Kind, NeedsTier, Tier
from otelwp_agent.components import Catalog
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.load import load
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.tiers import LIMITS
from tests.kit.tier_files import file, places, problems

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples/docker-compose.yaml"})
ENABLED = {
    Tier.FREE: {
        Kind.RECEIVER: {"datagram", "jaeger", "jaeger_json", "otlp", "zipkin"},
        Kind.PROCESSOR: {"attributes", "memory_limiter", "probabilistic_sampler", "resource", "wordpress"},
        Kind.EXPORTER: {"debug", "file", "jaeger", "recent_traces", "zipkin"},
        Kind.CONNECTOR: {"forward"},
        Kind.EXTENSION: {
            "basicauth",
            "bearertokenauth",
            "client_certificate",
            "headers_setter",
            "health_check",
            "oauth2client",
            "ui",
        },
    },
    Tier.PRO: {
        Kind.PROCESSOR: {"adaptive_sampling", "batch", "compression"},
        Kind.EXPORTER: {"loadbalancing", "otlp_grpc", "otlp_http"},
        Kind.EXTENSION: {"remote_sampling"},
    },
    Tier.ENTERPRISE: {
        Kind.RECEIVER: {"heartbeat"},
        Kind.PROCESSOR: {"encryption"},
        Kind.EXPORTER: {"managed"},
        Kind.CONNECTOR: {"failover", "routing", "smart_routing"},
        Kind.EXTENSION: {
            "admin_api",
            "api_key",
            "control_store",
            "delivery_statements",
            "fleet",
            "license_server",
            "oidc",
            "opamp_server",
            "rate_limiter",
        },
    },
}
"""What each tier adds."""

# --- what is stated ---


def test_each_tier_enables_what_those_before_it_do():
    enables = [[tier.enables(other) for other in Tier] for tier in Tier]
    assert enables == [[True, False, False], [True, True, False], [True, True, True]]


def test_every_component_states_the_tier_that_it_is_of():
    stated = {tier: {} for tier in Tier}
    for factory in Catalog().factories():
        stated[factory.tier].setdefault(factory.kind, set()).add(factory.type)
    assert stated == ENABLED


def test_what_stays_on_this_host_is_not_counted():
    exporters = [factory for factory in Catalog().factories() if factory.kind is Kind.EXPORTER]
    assert [factory.type for factory in exporters if not factory.counted] == ["debug", "file", "recent_traces"]


def test_what_is_left_out_is_below_every_ceiling():
    """The gate looks at what is written."""
    ceiling = min(limits.kept_percentage for limits in LIMITS.values() if limits.kept_percentage is not None)
    marked = [
        (factory.type, field.default)
        for factory in Catalog().factories()
        for field in factory.config.model_fields.values()
        if any(isinstance(mark, KeptPercentage) for mark in field.metadata)
    ]
    assert [type_ for type_, _ in marked] == ["probabilistic_sampler"]
    assert all(default <= ceiling for _, default in marked)


# --- what is enabled ---


def test_the_free_tier_has_its_stages_and_all_that_is_safe():
    assert problems(file(processors="memory_limiter, probabilistic_sampler", exporters="jaeger, debug, file")) == []
    assert problems(file(exporters="file, debug, zipkin")) == []


def test_without_a_tier_everything_is_enabled():
    everything = {
        "processors": "memory_limiter, adaptive_sampling, batch",
        "exporters": "jaeger, zipkin, otlp, debug, file",
        "extensions": "health_check, remote_sampling",
    }
    assert problems(file("enterprise", **everything)) == []
    assert problems(file(**everything).replace("  tier: free\n", "")) == []
    assert problems(file("", **everything)) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_on_the_highest_tier(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    make_plan(load([str(example)], ["service.tier=enterprise"], {}), Catalog())


def test_the_free_example_is_free():
    path = ROOT / "examples/free.yaml"
    assert make_plan(load([str(path)], (), {}), Catalog()).service.tier == "free"


# --- what is refused ---


def test_a_component_above_the_tier_is_refused_where_it_stands_with_what_to_do():
    (told,) = problems(file(processors="memory_limiter, batch"))
    assert told == (
        "yaml:16:3: processors.batch: this processor needs tier `pro`, but `service.tier` is `free`: leave it out of "
        "pipeline `traces`; tiers `pro` and `enterprise` enable it"
    )
    assert problems(file("pro", processors="memory_limiter, batch")) == []


def test_all_its_pipelines_are_named():
    text = file(processors="batch") + "    logs: {receivers: [otlp], processors: [batch], exporters: [debug]}\n"
    (told,) = problems(text)
    assert "leave it out of pipelines `traces` and `logs`; " in told


def test_an_extension_is_refused_too():
    (told,) = problems(file(extensions="health_check, remote_sampling"))
    assert told == (
        "yaml:29:3: extensions.remote_sampling: this extension needs tier `pro`, but `service.tier` is `free`: "
        "leave it out of `service.extensions`; tiers `pro` and `enterprise` enable it"
    )


def test_an_alias_is_called_what_the_file_calls_it():
    assert places(file(exporters="otlp")) == [("22", "exporters.otlp")]


def test_what_only_the_highest_tier_enables():
    class Sealed(Catalog):
        def get(self, kind, type_):
            if (kind, type_) == (Kind.PROCESSOR, "resource"):
                return Factory(kind, type_, ComponentConfig, lambda *_: None, tier=Tier.ENTERPRISE)
            return super().get(kind, type_)

    text = file("pro", processors="resource").replace("  batch:\n", "  resource:\n")
    (told,) = problems(text, catalog=Sealed())
    assert told == (
        "yaml:16:3: processors.resource: this processor needs tier `enterprise`, but `service.tier` is `pro`: leave it "
        "out of pipeline `traces`; tier `enterprise` enables it"
    )


def test_what_does_not_run_is_not_refused():
    text = file()
    assert "sites:" in text
    assert problems(text.replace("sampling_percentage: 10", "sampling_percentage: 100")) == []


def test_the_free_tier_has_one_exporter():
    (told,) = problems(file(exporters="zipkin, debug, jaeger"))
    assert told == (
        "yaml:20:3: exporters.zipkin: tier `free` allows 1 exporter, but there is `jaeger` in addition to `zipkin`: "
        "leave `jaeger` or `zipkin` out of the pipelines; tiers `pro` and `enterprise` allow any number"
    )
    assert problems(file("pro", exporters="jaeger, zipkin")) == []


def test_exporters_are_counted_over_all_pipelines_and_once_each():
    again = "    traces/2: {{receivers: [otlp], exporters: [{}]}}\n"
    assert places(file() + again.format("jaeger")) == []
    assert places(file() + again.format("zipkin")) == [("20", "exporters.zipkin")]


def test_two_exporters_of_one_type_are_two():
    text = file(exporters="jaeger, jaeger/2, zipkin").replace("  zipkin:\n", "  jaeger/2: {endpoint: b:1}\n  zipkin:\n")
    assert places(text) == [("20", "exporters.jaeger/2"), ("21", "exporters.zipkin")]


@pytest.mark.parametrize("protocol", ["otlp_grpc", "otlp_http", "grpc", "thrift_http"])
def test_jaeger_is_one_exporter_whatever_protocol_it_speaks(protocol):
    text = file().replace("  jaeger:\n", f"  jaeger:\n    protocol: {protocol}\n")
    assert problems(text) == []
    assert len(places(text.replace("[jaeger]", "[jaeger, zipkin]"))) == 1


def test_sites_of_a_network_need_the_highest_tier_only_if_they_are_asked_for():
    text = file("pro", processors="wordpress").replace("  batch:\n", "  wordpress:\n    multisite: {SETTING}\n")
    assert problems(text.replace("SETTING", "")) == []
    assert problems(text.replace("SETTING", "enabled: false")) == []
    assert problems(text.replace("SETTING", "suffix: '-site-{id}'")) == []
    assert places(text.replace("SETTING", "enabled: true")) == [("17", "processors.wordpress.multisite.enabled")]
    assert places(text.replace("SETTING", "suffix: '-{id}'")) == [("17", "processors.wordpress.multisite.suffix")]
    highest = text.replace("tier: pro", "tier: enterprise")
    assert problems(highest.replace("SETTING", "enabled: true, suffix: '-{id}'")) == []


def test_a_licence_decides_instead_of_the_stated_tier():
    text = file(processors="batch", exporters="jaeger, zipkin")
    assert len(problems(text)) == 2
    licensed = text.replace("  tier: free\n", "  tier: free\n  license: {key: a.b.c}\n")
    assert problems(licensed) == []
    document = load([f"yaml:{licensed}"], (), {})
    free, pro = (make_plan(document, Catalog(), tier).warnings for tier in (Tier.FREE, Tier.PRO))
    told = [str(warning) for warning in free if "tier" in str(warning)]
    assert [warning.partition(": ")[0] for warning in told] == ["warning"] * 3
    assert "needs tier `pro`, but the tier of this agent is `free`" in told[0]
    assert "service.tier: this has no effect, because the licence decides: remove it" in told[2]
    assert [str(warning) for warning in pro if "tier" in str(warning)] == told[2:]


def test_an_exporter_above_the_tier_is_refused_for_that_alone():
    assert places(file(exporters="jaeger, otlp")) == [("22", "exporters.otlp")]


@pytest.mark.parametrize("written", ["10.01", "11", "100", "1e3", "'25'", "0x10"])
def test_a_percentage_above_the_ceiling_is_refused_at_its_line(written):
    text = file(processors="probabilistic_sampler").replace("percentage: 10", f"percentage: {written}")
    assert places(text) == [("10", "processors.probabilistic_sampler.sampling_percentage")]
    assert problems(text.replace("tier: free", "tier: pro")) == []


@pytest.mark.parametrize("written", ["", "0", "9.99", "10", "10.0", "'10'"])
def test_a_percentage_within_it_is_not(written):
    assert problems(file(processors="probabilistic_sampler").replace("percentage: 10", f"percentage: {written}")) == []


@pytest.mark.parametrize("written", ["25", "10.0000001"])
def test_a_percentage_says_what_would_be_right(written):
    text = file(processors="probabilistic_sampler").replace("percentage: 10", f"percentage: {written}")
    (told,) = problems(text)
    assert told == (
        f"yaml:10:26: processors.probabilistic_sampler.sampling_percentage: {written} % is above 10 %, the most that "
        "tier `free` keeps: give 10 or less; tiers `pro` and `enterprise` have no ceiling"
    )


def test_a_percentage_out_of_a_variable_is_held_to_it_and_not_shown():
    text = file(processors="probabilistic_sampler").replace("percentage: 10", "percentage: ${env:RATE}")
    assert problems(text, env={"RATE": "10"}) == []
    (told,) = problems(text, env={"RATE": "12.5"})
    assert told.startswith("yaml:10:26: ")
    assert "the value of `${env:RATE}` is above 10 %" in told
    assert "12.5" not in told


@pytest.mark.parametrize("written", ["many", "true", "-5", ".inf", "[50]"])
def test_a_percentage_that_is_none_is_refused_once(written):
    text = file(processors="probabilistic_sampler").replace("percentage: 10", f"percentage: {written}")
    (told,) = problems(text)
    assert "tier" not in told


@pytest.mark.parametrize("written", ["${env:NONE}", "a${env:NONE}"])
def test_what_could_not_be_read_is_told_once(written):
    text = file("pro", processors="adaptive_sampling").replace("sites:\n      minimum: 60", f"sites: {written}")
    (told,) = problems(text)
    assert "NONE is not set" in told


def test_rules_by_site_are_refused_below_the_highest_tier():
    (told,) = problems(file("pro", processors="adaptive_sampling"))
    assert told == (
        "yaml:14:5: processors.adaptive_sampling.sites: this needs tier `enterprise`, but `service.tier` is `pro`: "
        "leave it out; tier `enterprise` enables it"
    )
    assert problems(file("enterprise", processors="adaptive_sampling")) == []


@pytest.mark.parametrize(("sites", "refused"), [("", False), ("~", False), ("{}", True), ("{rules: []}", True)])
def test_sites_that_say_nothing_are_none(sites, refused):
    text = file("pro", processors="adaptive_sampling").replace("sites:\n      minimum: 60", f"sites: {sites}")
    assert places(text) == ([("14", "processors.adaptive_sampling.sites")] if refused else [])


def test_everything_above_the_tier_is_told_in_one_run_in_the_order_of_the_file():
    text = file(
        processors="probabilistic_sampler, adaptive_sampling, batch",
        exporters="jaeger, zipkin, otlp",
        extensions="remote_sampling",
    ).replace("percentage: 10", "percentage: 50")
    assert places(text) == [
        ("10", "processors.probabilistic_sampler.sampling_percentage"),
        ("11", "processors.adaptive_sampling"),
        ("14", "processors.adaptive_sampling.sites"),
        ("16", "processors.batch"),
        ("20", "exporters.zipkin"),
        ("22", "exporters.otlp"),
        ("29", "extensions.remote_sampling"),
    ]


def test_it_is_told_whatever_else_is_wrong():
    text = file(processors="adaptive_sampling, batch").replace("  batch:\n", "  batch: {timeuot: 1s}\n")
    text = text.replace("spans_per_second", "spans").replace("  journal:", "  shutdown_timeout: soon\n  journal:")
    assert places(text) == [
        ("11", "processors.adaptive_sampling"),
        ("13", "processors.adaptive_sampling.target.spans"),
        ("14", "processors.adaptive_sampling.sites"),
        ("16", "processors.batch"),
        ("16", "processors.batch.timeuot"),
        ("32", "service.shutdown_timeout"),
    ]


def test_a_tier_that_is_none_is_told():
    assert problems(file("fre", processors="batch")) == [
        "yaml:31:9: service.tier: this must be `free`, `pro` or `enterprise`, not 'fre': did you mean `free`?"
    ]


def test_marks_are_found_in_every_block_of_a_component_of_anybody():
    """A component that is installed beside ours says the same with the same words."""

    class Rule(Block):
        share: Annotated[float, KeptPercentage()] = 1.0
        seal: Annotated[bool, NeedsTier(Tier.PRO)] = False

    class Config(ComponentConfig):
        rules: list[Rule] = Field(default_factory=list)
        more: dict[str, Rule] = Field(default_factory=dict)

    class Theirs(Catalog):
        def get(self, kind, type_):
            if (kind, type_) == (Kind.PROCESSOR, "resource"):
                return Factory(kind, type_, Config, lambda *_: None, frozenset(Signal))
            return super().get(kind, type_)

    text = file(processors="resource").replace(
        "  batch:\n",
        "  resource:\n"
        "    rules:\n"
        "      - {share: 10, seal: false}\n"
        "      - {share: , seal: }\n"
        "      - {share: 20}\n"
        "    more:\n"
        "      one:\n"
        "        seal: true\n",
    )
    assert places(text, catalog=Theirs()) == [
        ("20", "processors.resource.rules[2].share"),
        ("23", "processors.resource.more.one.seal"),
    ]
