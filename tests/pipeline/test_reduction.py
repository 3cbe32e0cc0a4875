"""A plan is reduced to what a tier enables: telemetry still has a destination, and is as safe as before."""

import pytest

from otelwp_agent.component import Kind, Tier
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.reduction import reduce_plan
from tests.pipeline.test_plan_bodies import ACCEPTED, configuration, refused

ORDER = [Tier.ENTERPRISE, Tier.PRO, Tier.FREE]


def planned(pipelines, tier="enterprise"):
    return make_plan(load([f"yaml:{configuration(tier, pipelines)}"], (), {}), Catalog())


def written(plan):
    """Return the pipelines of a plan as `configuration` takes them."""
    return "\n".join(
        f"{pipeline.id}: "
        + " > ".join(", ".join(map(str, getattr(pipeline, name))) for name in ("receivers", "processors", "exporters"))
        for pipeline in plan.pipelines.values()
    )


@pytest.mark.parametrize(
    ("tier", "before", "after", "changes"),
    [
        (Tier.ENTERPRISE, "traces: otlp > batch > managed, jaeger", "traces: otlp > batch > managed, jaeger", []),
        (
            Tier.FREE,
            "traces: otlp > memory_limiter, batch > jaeger, debug",
            "traces: otlp > memory_limiter > jaeger, debug",
            ["processors/batch bypassed"],
        ),
        (
            Tier.FREE,
            "traces: otlp > > otlp_http, jaeger, zipkin",
            "traces: otlp >  > jaeger",
            [
                "exporters/otlp_http stopped: when its queue is empty",
                "exporters/zipkin stopped: when its queue is empty",
            ],
        ),
        (
            Tier.FREE,
            "traces: otlp > batch > otlp_http, otlp_grpc",
            "traces: otlp >  > otlp_http",
            [
                "exporters/otlp_grpc stopped: when its queue is empty",
                "exporters/otlp_http kept: pipeline `traces` has no other exporter",
                "processors/batch bypassed",
            ],
        ),
        (
            Tier.FREE,
            "traces: otlp > batch > jaeger\nmetrics: otlp > > otlp_http\nlogs: otlp > > otlp_http, debug",
            "traces: otlp >  > jaeger\nmetrics: otlp >  > otlp_http\nlogs: otlp >  > otlp_http, debug",
            ["exporters/otlp_http kept: pipeline `metrics` has no other exporter", "processors/batch bypassed"],
        ),
        (
            Tier.FREE,
            "traces: otlp > > zipkin\ntraces/2: otlp > > jaeger",
            "traces: otlp >  > zipkin\ntraces/2: otlp >  > jaeger",
            ["exporters/jaeger kept: pipeline `traces/2` has no other exporter"],
        ),
        (
            Tier.FREE,
            "traces: otlp > probabilistic_sampler/half > jaeger",
            "traces: otlp > probabilistic_sampler/half > jaeger",
            ["processors/probabilistic_sampler/half limited: sampling_percentage is 10"],
        ),
        (
            Tier.FREE,
            "traces: otlp > batch, compression, encryption > managed",
            "traces: otlp > encryption > managed",
            [
                "exporters/managed kept: pipeline `traces` has no other exporter",
                "processors/batch bypassed",
                "processors/compression bypassed",
                "processors/encryption kept: without it, data would leave unencrypted",
            ],
        ),
        (
            Tier.PRO,
            "traces: otlp > batch, compression, encryption > managed, otlp_http",
            "traces: otlp > batch, compression, encryption > otlp_http",
            [
                "exporters/managed stopped: when its queue is empty",
                "processors/encryption kept: without it, data would leave unencrypted",
            ],
        ),
        (
            Tier.FREE,
            "traces: otlp > batch > forward\ntraces/2: forward > compression > otlp_http",
            "traces: otlp >  > forward\ntraces/2: forward >  > otlp_http",
            [
                "exporters/otlp_http kept: pipeline `traces/2` has no other exporter",
                "processors/batch bypassed",
                "processors/compression bypassed",
            ],
        ),
    ],
)
def test_what_a_tier_leaves_of_a_plan(tier, before, after, changes):
    reduction = reduce_plan(planned(before), tier)
    assert written(reduction.plan) == after
    assert [str(change) for change in reduction.changes] == changes


@pytest.mark.parametrize("pipelines", [pipelines for _, pipelines in ACCEPTED])
@pytest.mark.parametrize("tier", ORDER[1:])
def test_a_reduced_plan_is_a_valid_graph_in_which_every_item_has_a_destination(tier, pipelines):
    plan = planned(pipelines)
    reduced = reduce_plan(plan, tier).plan
    assert refused(configuration("enterprise", written(reduced))) == [], "encoded bodies reach only what accepts them"
    assert list(reduced.pipelines) == list(plan.pipelines)
    for name, pipeline in plan.pipelines.items():
        counted = [
            one.id
            for (kind, identifier), one in plan.components.items()
            if identifier in pipeline.exporters and (kind is Kind.CONNECTOR or one.factory.counted)
        ]
        assert not counted or set(counted) & set(reduced.pipelines[name].exporters)
        for stage in ("encryption", "encryption/2", "memory_limiter"):
            assert (stage in map(str, pipeline.processors)) == (stage in map(str, reduced.pipelines[name].processors))
    used = {each for pipeline in reduced.pipelines.values() for each in (*pipeline.exporters, *pipeline.processors)}
    assert used <= {identifier for _, identifier in reduced.components}


@pytest.mark.parametrize("pipelines", [pipelines for tier, pipelines in ACCEPTED if tier == "free"])
def test_nothing_changes_that_the_tier_enables(pipelines):
    plan = planned(pipelines)
    reduction = reduce_plan(plan, Tier.FREE)
    assert written(reduction.plan) == written(plan)
    assert [change for change in reduction.changes if "multisite" not in change.detail] == []


def test_exporters_that_stop_are_emptied_first_and_then_gone():
    plan = planned("traces: otlp > > jaeger, zipkin, otlp_http")
    first = reduce_plan(plan, Tier.FREE).plan
    zipkin, otlp_http = plan.pipelines["traces"].exporters[1:]
    assert first.emptying == {zipkin, otlp_http}
    assert first.components[Kind.EXPORTER, zipkin] is plan.components[Kind.EXPORTER, zipkin]
    second = reduce_plan(plan, Tier.FREE, {zipkin}).plan
    assert second.emptying == {otlp_http}
    assert (Kind.EXPORTER, zipkin) not in second.components


GUARDED = """
extensions:
  control_store: {url: 'sqlite:///control.db', create: true}
  api_key: {store: control_store}
  rate_limiter: {limits: [{key: tenant, requests_per_second: 5}]}
  admin_api: {endpoint: '127.0.0.1:0', store: control_store}
  remote_sampling:
  health_check:
receivers:
  otlp: {protocols: {http: {auth: {authenticator: api_key}}}}
exporters: {jaeger: {endpoint: 'localhost:4317'}}
service:
  extensions: [health_check, control_store, api_key, rate_limiter, admin_api, remote_sampling]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger]}}
"""


def test_what_authenticates_clients_is_kept_with_all_that_it_needs():
    reduction = reduce_plan(make_plan(load([f"yaml:{GUARDED}"], (), {}), Catalog()), Tier.FREE)
    assert list(map(str, reduction.plan.extensions)) == ["health_check", "control_store", "api_key"]
    assert [str(change) for change in reduction.changes] == [
        "extensions/admin_api stopped",
        "extensions/api_key kept: a component refers to it",
        "extensions/control_store kept: a component refers to it",
        "extensions/rate_limiter stopped",
        "extensions/remote_sampling stopped",
    ]
