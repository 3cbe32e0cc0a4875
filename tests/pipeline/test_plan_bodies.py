"""Which pipelines are accepted, and at which line the others are refused: encoded bodies, order, tier and exporters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.trial import try_to_build
from tests.kit.pipeline_files import configuration, line_of, refused

ACCEPTED = [
    # Plain
    ("free", "traces: otlp > > jaeger"),
    (
        "free",
        "traces: otlp, zipkin > memory_limiter, attributes, wordpress, probabilistic_sampler > zipkin, debug, file",
    ),
    ("free", "traces: otlp > > jaeger\ntraces/2: zipkin > memory_limiter > jaeger"),
    ("free", "traces: otlp > > forward\ntraces/2: forward > probabilistic_sampler > jaeger"),
    ("pro", "traces: otlp > probabilistic_sampler/half, batch > jaeger, zipkin, otlp_grpc, otlp_http, otlp_http/json"),
    ("pro", "traces: otlp > wordpress, adaptive_sampling, batch > otlp_http"),
    ("pro", "traces: otlp > batch, batch/2 > jaeger, jaeger/2"),
    ("enterprise", "traces: otlp > batch > managed, jaeger"),
    ("enterprise", "traces: otlp > batch > managed/merging"),
    ("enterprise", "traces: otlp/opening > wordpress, batch > jaeger"),
    # Compressed
    ("pro", "traces: otlp > compression > otlp_http"),
    ("pro", "traces: otlp > wordpress, batch, compression > otlp_http"),
    ("pro", "traces: otlp > batch, compression, memory_limiter > otlp_http"),
    ("pro", "traces: otlp > compression > otlp_http\ntraces/2: otlp > batch > jaeger"),
    ("pro", "traces: otlp > batch > forward\ntraces/2: forward > compression > otlp_http"),
    ("pro", "traces: otlp > batch, compression > forward\ntraces/2: forward > memory_limiter > otlp_http"),
    ("enterprise", "traces: otlp > batch, compression > managed, otlp_http"),
    # Encrypted
    ("enterprise", "traces: otlp > encryption > managed"),
    ("enterprise", "traces: otlp > batch, compression, encryption > managed"),
    ("enterprise", "traces: otlp > wordpress, adaptive_sampling, batch, compression, encryption > managed, otlp_http"),
    ("enterprise", "traces: otlp > batch, compression, memory_limiter, encryption > managed"),
    ("enterprise", "traces: otlp > batch, compression > forward\ntraces/2: forward > encryption > managed"),
    ("enterprise", "traces: otlp > batch > forward, jaeger\ntraces/2: forward > compression, encryption > managed"),
    (
        "enterprise",
        "traces: otlp > batch > forward\nlogs: otlp > > debug\ntraces/3: forward, zipkin > encryption > managed",
    ),
    ("enterprise", "traces: otlp/opening > batch, encryption > managed\nlogs: otlp > encryption > managed"),
    ("enterprise", "traces: otlp > encryption > managed\nmetrics: otlp > batch > otlp_grpc\nlogs: otlp > > debug"),
    # A receiver that forwards encrypted bodies
    ("enterprise", "traces: otlp/forward > > managed"),
    ("enterprise", "traces: otlp/forward, zipkin > memory_limiter > managed, otlp_http"),
    ("enterprise", "traces: otlp/forward > > forward\ntraces/2: forward > memory_limiter > managed"),
    ("enterprise", "traces: otlp/forward > > managed\ntraces/2: otlp/opening, zipkin > batch > jaeger"),
]

REFUSED = [
    # Stages that read bodies, after one that encodes them
    ("pro", "traces: otlp > compression, batch > otlp_http", {"traces: batch": "put it before `compression`"}),
    ("pro", "traces: otlp > compression, attributes > otlp_http", {"traces: attributes": "cannot read data that"}),
    ("pro", "traces: otlp > compression, wordpress > otlp_http", {"traces: wordpress": "has compressed"}),
    (
        "pro",
        "traces: otlp > compression, probabilistic_sampler > otlp_http",
        {"traces: probabilistic_sampler": "put it before `compression`"},
    ),
    (
        "pro",
        "traces: otlp > compression, adaptive_sampling, batch > otlp_http",
        {"traces: adaptive_sampling": "has compressed", "traces: batch": "has compressed"},
    ),
    ("enterprise", "traces: otlp > encryption, batch > managed", {"traces: batch": "`encryption` has encrypted"}),
    (
        "enterprise",
        "traces: otlp > compression, encryption, batch > managed",
        {"traces: batch": "`encryption` has encrypted: put it before `encryption`"},
    ),
    (
        "enterprise",
        "traces: otlp > compression, wordpress, encryption > managed",
        {"traces: wordpress": "put it before `compression`"},
    ),
    # Order of what encodes, and the same twice
    (
        "enterprise",
        "traces: otlp > encryption, compression > managed",
        {"traces: compression": "cannot compress data that `encryption` has encrypted: put it before `encryption`"},
    ),
    (
        "enterprise",
        "traces: otlp > encryption, encryption/2 > managed",
        {"traces: encryption/2": "cannot encrypt data that `encryption` has encrypted: leave one of them out"},
    ),
    (
        "pro",
        "traces: otlp > compression, compression/2 > otlp_http",
        {"traces: compression/2": "cannot compress data that `compression` has compressed: leave one of them out"},
    ),
    (
        "enterprise",
        "traces: otlp > compression, encryption, compression/2, encryption/2 > managed",
        {"traces: compression/2": "put it before `encryption`", "traces: encryption/2": "leave one of them out"},
    ),
    # Exporters that cannot send encoded bodies
    (
        "pro",
        "traces: otlp > compression > jaeger",
        {"traces: jaeger": "cannot send data that `compression` has compressed: use `managed`"},
    ),
    ("pro", "traces: otlp > compression > zipkin", {"traces: zipkin": "cannot send"}),
    ("pro", "traces: otlp > compression > debug", {"traces: debug": "cannot send"}),
    ("pro", "traces: otlp > compression > file", {"traces: file": "cannot send"}),
    ("pro", "traces: otlp > compression > otlp_grpc", {"traces: otlp_grpc": "cannot send"}),
    ("enterprise", "traces: otlp > encryption > jaeger", {"traces: jaeger": "`encryption` has encrypted"}),
    (
        "enterprise",
        "traces: otlp > batch, compression, encryption > managed, jaeger, file",
        {"traces: jaeger": "leave `encryption` out of pipeline `traces`", "traces: file": "has encrypted"},
    ),
    (
        "pro",
        "traces: otlp > compression > otlp_http/json",
        {"exporters.otlp_http/json.encoding": "set `encoding: proto`"},
    ),
    (
        "enterprise",
        "traces: otlp > compression > managed/merging",
        {"exporters.managed/merging.sending_queue.batch": "data that `compression` has compressed cannot pass here"},
    ),
    (
        "enterprise",
        "traces: otlp > encryption > managed, managed/merging, otlp_http/json",
        {
            "exporters.otlp_http/json.encoding": "in pipeline `traces`",
            "exporters.managed/merging.sending_queue.batch": "in pipeline `traces`",
        },
    ),
    # Across connectors
    (
        "pro",
        "traces: otlp > compression > forward\ntraces/2: forward > batch > otlp_http",
        {"traces/2: batch": "`compression` of pipeline `traces` has compressed: put it into pipeline `traces`"},
    ),
    (
        "pro",
        "traces: otlp > compression > forward\ntraces/2: forward > > jaeger",
        {"traces/2: jaeger": "or leave `compression` out of pipeline `traces`"},
    ),
    (
        "pro",
        "traces: otlp > compression > forward\ntraces/2: forward > compression/2 > otlp_http",
        {"traces/2: compression/2": "leave one of them out"},
    ),
    (
        "enterprise",
        "traces: otlp > encryption > forward\ntraces/2: forward > compression > managed",
        {"traces/2: compression": "`encryption` of pipeline `traces`"},
    ),
    (
        "enterprise",
        "traces: otlp > compression > forward\ntraces/2: forward > > forward/2\ntraces/3: forward/2 > batch > managed",
        {"traces/3: batch": "`compression` of pipeline `traces` has compressed"},
    ),
    (
        "enterprise",
        "traces: otlp > compression > forward\ntraces/2: otlp > encryption > forward\ntraces/c: forward > batch > file",
        {"traces/c: batch": "`encryption` of pipeline `traces/2` has encrypted", "traces/c: file": "cannot send"},
    ),
    (
        "enterprise",
        "traces: otlp > > forward\ntraces/2: forward > encryption > forward/2\ntraces/3: forward/2 > batch > managed",
        {"traces/3: batch": "`encryption` of pipeline `traces/2`"},
    ),
    (
        "pro",
        "traces/b: forward > batch > otlp_http\ntraces: otlp > compression > forward",
        {"traces/b: batch": "of pipeline `traces`"},
    ),
    # Fan-outs: only the pipelines behind the encoder are concerned
    (
        "pro",
        "traces: otlp > compression > forward, jaeger\ntraces/2: forward > > otlp_http",
        {"traces: jaeger": "cannot send"},
    ),
    (
        "pro",
        "traces: otlp > compression > otlp_http\ntraces/2: otlp > batch, compression, batch/2 > otlp_http",
        {"traces/2: batch/2": "put it before `compression`"},
    ),
    (
        "pro",
        "traces: otlp > compression > jaeger\nlogs: otlp > compression > file",
        {"traces: jaeger": "in pipeline `traces`|out of pipeline `traces`", "logs: file": "out of pipeline `logs`"},
    ),
    # Receivers that forward encrypted bodies
    (
        "enterprise",
        "traces: otlp/forward > batch > managed",
        {"traces: batch": "encrypted data of receiver `otlp/forward`: leave it out, or have the receiver emit"},
    ),
    ("enterprise", "traces: otlp/forward > > jaeger", {"traces: jaeger": "cannot send encrypted data of receiver"}),
    (
        "enterprise",
        "traces: otlp/forward > compression > managed",
        {"traces: compression": "cannot compress encrypted data of receiver `otlp/forward`"},
    ),
    (
        "enterprise",
        "traces: otlp/forward > encryption > managed",
        {"traces: encryption": "cannot encrypt encrypted data of receiver `otlp/forward`: leave it out"},
    ),
    (
        "enterprise",
        "traces: zipkin, otlp/forward > wordpress > managed",
        {"traces: wordpress": "encrypted data of receiver `otlp/forward`"},
    ),
    (
        "enterprise",
        "traces: otlp/forward > > forward\ntraces/2: forward, zipkin > batch > managed",
        {"traces/2: batch": "encrypted data of receiver `otlp/forward` of pipeline `traces`"},
    ),
    # Tiers
    ("free", "traces: otlp > batch > jaeger", {"processors.batch": "needs tier `pro`"}),
    ("free", "traces: otlp > adaptive_sampling > jaeger", {"processors.adaptive_sampling": "needs tier `pro`"}),
    ("free", "traces: otlp > > otlp_http", {"exporters.otlp_http": "needs tier `pro`"}),
    ("free", "traces: otlp > > otlp_grpc", {"exporters.otlp_grpc": "needs tier `pro`"}),
    ("free", "traces: otlp > > managed", {"exporters.managed": "needs tier `enterprise`"}),
    ("pro", "traces: otlp > > managed", {"exporters.managed": "needs tier `enterprise`"}),
    ("pro", "traces: otlp > encryption > otlp_http", {"processors.encryption": "needs tier `enterprise`"}),
    (
        "free",
        "traces: otlp > compression > otlp_http",
        {"processors.compression": "needs tier `pro`", "exporters.otlp_http": "needs tier `pro`"},
    ),
    (
        "free",
        "traces: otlp > probabilistic_sampler/half > jaeger",
        {"processors.probabilistic_sampler/half.sampling_percentage": "50 % is above 10 %"},
    ),
    # Exporters of the free tier
    ("free", "traces: otlp > > jaeger, zipkin", {"exporters.zipkin": "allows 1 exporter"}),
    ("free", "traces: otlp > > jaeger\ntraces/2: otlp > > jaeger/2", {"exporters.jaeger/2": "allows 1 exporter"}),
    (
        "free",
        "traces: otlp > > forward\ntraces/2: forward > > jaeger, debug\ntraces/3: forward > > zipkin, file",
        {"exporters.zipkin": "allows 1 exporter"},
    ),
    # Several reasons at once
    (
        "free",
        "traces: otlp > compression, batch > jaeger, zipkin",
        {
            "processors.batch": "needs tier `pro`",
            "processors.compression": "needs tier `pro`",
            "exporters.zipkin": "allows 1 exporter",
            "traces: batch": "put it before `compression`",
            "traces: jaeger": "cannot send",
            "traces: zipkin": "cannot send",
        },
    ),
    (
        "pro",
        "traces: otlp > encryption, compression > jaeger",
        {
            "processors.encryption": "needs tier `enterprise`",
            "traces: compression": "put it before `encryption`",
            "traces: jaeger": "has encrypted",
        },
    ),
]


@pytest.mark.parametrize(("tier", "pipelines"), ACCEPTED)
def test_pipelines_that_are_accepted(tier, pipelines):
    text = configuration(tier, pipelines)
    assert refused(text) == []
    make_plan(load([f"yaml:{text}"], (), {}), Catalog())


@pytest.mark.parametrize(("tier", "pipelines", "where"), REFUSED)
def test_pipelines_that_are_refused_at_their_lines(tier, pipelines, where):
    text = configuration(tier, pipelines)
    found = refused(text)
    assert sorted(line for line, _ in found) == sorted(line_of(text, place) for place in where), found
    for place, reason in where.items():
        (message,) = [message for line, message in found if line == line_of(text, place)]
        assert any(part in message for part in reason.split("|")), message


@pytest.mark.parametrize("tier", ["free", "pro", "enterprise"])
def test_everything_that_the_table_uses_can_be_built(tier):
    document = load([f"yaml:{configuration(tier, 'traces: otlp > > jaeger')}"], (), {})
    plan = make_plan(document, Catalog())
    assert len(plan.unused) > 20
    try_to_build(plan, document)


def test_the_table_is_large_and_each_row_is_another_pipeline():
    rows = [(tier, pipelines) for tier, pipelines, *_ in (*ACCEPTED, *REFUSED)]
    assert len({*rows}) == len(rows) >= 60


ENCODINGS = {"memory_limiter": 2, "batch": 0, "compression": 0, "encryption": 1, "jaeger": 0, "managed": 2}
"""How much each stage accepts: 0 plain, 1 compressed, 2 encrypted bodies."""


def walk(pipelines, number, bodies, found):
    """Follow every way that bodies can take from a pipeline on; add each stage that cannot accept them to `found`."""
    processors, exporters = pipelines[number]
    for stage in processors:
        if bodies > ENCODINGS[stage]:
            found.add(f"traces/{number}: {stage}")
        bodies = max(bodies, {"compression": 1, "encryption": 2}.get(stage, 0))
    for exporter in exporters:
        if isinstance(exporter, int):
            walk(pipelines, exporter, bodies, found)
        elif bodies > ENCODINGS[exporter]:
            found.add(f"traces/{number}: {exporter}")


PROCESSORS = st.permutations(["memory_limiter", "batch", "compression", "encryption"])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_stage_is_refused_exactly_if_bodies_that_it_cannot_accept_reach_it_on_some_way(data):
    """Pipelines feed later ones through connectors; the reference follows each way from each receiver."""
    pipelines = []
    for number in range(4):
        processors = data.draw(PROCESSORS)[: data.draw(st.integers(0, 3))]
        ends = st.sampled_from([*range(number + 1, 4), "jaeger", "managed"])
        pipelines.append((processors, data.draw(st.lists(ends, min_size=1, unique=True))))
    expected = set()
    for number in range(4):
        walk(pipelines, number, 0, expected)
    text = configuration("enterprise", "\n".join(written(pipelines, number) for number in range(4)))
    ways = "".join(f"  forward/{start}{end}:\n" for start in range(4) for end in range(start + 1, 4))
    text = text.replace("  forward/2:\n", f"  forward/2:\n{ways}")
    assert {line for line, _ in refused(text)} == {line_of(text, where) for where in expected}


def written(pipelines, number):
    """Return pipeline `number` as `configuration` takes it."""
    processors, exporters = pipelines[number]
    sources = ["otlp", *(f"forward/{source}{number}" for source in range(number) if number in pipelines[source][1])]
    ends = [f"forward/{number}{end}" if isinstance(end, int) else end for end in exporters]
    return f"traces/{number}: {', '.join(sources)} > {', '.join(processors)} > {', '.join(ends)}"
