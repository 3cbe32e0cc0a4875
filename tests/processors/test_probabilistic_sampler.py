from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import count
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.probabilistic_sampler import Config
from otelwp_agent.sampling.consistent import NEVER, format_randomness
from otelwp_agent.sampling.items import ItemVerdict, SpanSampler
from otelwp_agent.testing import messages_of
from tests.kit.otlp import meaning, requests
from tests.kit.stages import batch_of, build

STATES = ["", "congo=1", "ot=th:4", "ot=th:0;x:y,a=b", f"ot=rv:{format_randomness(1)}", "ot=rv:f", "ot=th:zz"]


def traces(draw, resources=2, spans=20, *, odd=False):
    """Return a request of spans; with `odd`, among them every case that cannot be judged by the trace id alone."""
    request = ExportTraceServiceRequest()
    for _ in range(resources):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "shop"
        for _ in range(draw.randint(0, 2)):
            scope = resource.scope_spans.add()
            for number in range(draw.randint(0, spans)):
                span = scope.spans.add(trace_id=draw.randbytes(16), span_id=draw.randbytes(8), name=str(number))
                if odd and draw.random() < 0.3:
                    span.trace_state = draw.choice(STATES)
                if odd and draw.random() < 0.05:
                    span.trace_id = draw.choice([b"", bytes(16), b"12345678", b"\x01" + bytes(15)])
                if odd and draw.random() < 0.05:
                    span.attributes.add(key="sampling.priority").value.int_value = draw.choice([0, 1, -1])
    return request.SerializeToString()


def shares_of(items, draw):
    """Return receipts of random sizes for `items` items."""
    shares = []
    while items:
        size = draw.randint(1, items)
        shares.append((Receipt(size), size))
        items -= size
    return shares


def check(settings, body, draw):
    """Sample a request, and compare with judging every span alone."""
    stage, catcher = build("probabilistic_sampler", settings)
    judge = stage._judges[Signal.TRACES]
    total = count(Signal.TRACES, body)
    shares = shares_of(total, draw)
    stage.consume(Batch(Signal.TRACES, body, total, Origin(), shares))
    judgements = [judge.judge(span.SerializeToString()) for span in messages_of(Signal.TRACES, body)]
    kept = [judgement.data for judgement in judgements if judgement.verdict is ItemVerdict.KEPT]
    got = [span for batch in catcher.batches for span in messages_of(Signal.TRACES, batch.body)]
    span = ExportTraceServiceRequest().resource_spans.add().scope_spans.add().spans.add()
    assert got == [type(span).FromString(data) for data in kept]
    assert catcher.items == len(kept)
    start = 0
    for receipt, items in shares:
        part = judgements[start : start + items]
        start += items
        assert receipt.pending == sum(each.verdict is ItemVerdict.KEPT for each in part)
        assert receipt.count(Outcome.SAMPLED_OUT) == sum(each.verdict is ItemVerdict.SAMPLED_OUT for each in part)
        assert receipt.count(Outcome.FILTERED) == sum(each.verdict > ItemVerdict.SAMPLED_OUT for each in part)
    for batch in catcher.batches:
        assert sum(items for _, items in batch.shares) == batch.items
        batch.settle(Outcome.DELIVERED)
    assert [receipt.pending for receipt, _ in shares] == [0] * len(shares)
    return judgements


percentages = st.sampled_from([0.0, 0.39, 10.0, 25.0, 33.3, 50.0, 99.9, 100.0])


@settings(max_examples=150)
@given(
    percentages,
    st.sampled_from(["proportional", "equalizing", "hash_seed"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_the_quick_way_and_the_careful_way_agree(percentage, mode, odd, fail_closed, seed):
    draw = random.Random(seed)
    options = {"sampling_percentage": percentage, "mode": mode, "fail_closed": fail_closed}
    check(options, traces(draw, odd=odd), draw)


@pytest.mark.parametrize("percentage", [33.3, 50.0, 99.99, 100.0])
@pytest.mark.parametrize("near", [-1, 0, 1, 2**47, -(2**47)])
def test_the_quick_way_is_exact_at_the_threshold(percentage, near):
    threshold = (
        build("probabilistic_sampler", {"sampling_percentage": percentage})[0]._judges[Signal.TRACES].settings.threshold
    )
    randomness = min(max(threshold + near, 0), NEVER - 1)
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for value in (randomness, NEVER - 1, randomness):
        spans.add(trace_id=b"\x07" * 9 + value.to_bytes(7, "big"))
    judgements = check({"sampling_percentage": percentage}, request.SerializeToString(), random.Random(1))
    assert (judgements[0].verdict is ItemVerdict.KEPT) == (randomness >= threshold)


@pytest.mark.parametrize("trace_id", [bytes(16), b"\x01" + bytes(15), b"", bytes(15), b"\x07" * 15, b"\x07" * 17])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("percentage", [50.0, 100.0])
def test_one_odd_id_among_others_is_found(trace_id, place, percentage):
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(3):
        spans.add(trace_id=trace_id if number == place else b"\xff" * 16, name=str(number))
    check({"sampling_percentage": percentage}, request.SerializeToString(), random.Random(1))


@settings(max_examples=60)
@given(requests(Signal.TRACES), st.sampled_from([25.0, 100.0]), st.integers(0, 2**32))
def test_any_request_is_sampled_span_by_span(body, percentage, seed):
    check({"sampling_percentage": percentage}, body, random.Random(seed))


@pytest.mark.parametrize("options", [{}, {"hash_seed": 3}, {"mode": "equalizing", "fail_closed": False}])
def test_the_quick_way_is_taken_for_ordinary_spans(monkeypatch, options):
    monkeypatch.setattr(SpanSampler, "judge", lambda *_: pytest.fail("read one by one"))
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 33.3, **options})
    body = traces(random.Random(1), spans=200)
    stage.consume(batch_of(body, count(Signal.TRACES, body)))
    assert catcher.items


def test_the_rest_of_the_request_stays():
    body = traces(random.Random(3), resources=3)
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 100})
    stage.consume(batch_of(body, count(Signal.TRACES, body)))
    (batch,) = catcher.batches
    expected = ExportTraceServiceRequest.FromString(body)
    for resource in list(expected.resource_spans):
        for scope in list(resource.scope_spans):
            for span in scope.spans:
                span.trace_state = "ot=th:0"
            if not scope.spans:
                resource.scope_spans.remove(scope)
        if not resource.scope_spans:
            expected.resource_spans.remove(resource)
    assert meaning(Signal.TRACES, batch.body) == expected.SerializeToString(deterministic=True)


def test_a_second_sampler_keeps_a_subset_and_raises_the_threshold():
    body = traces(random.Random(5), spans=300)
    first, between = build("probabilistic_sampler", {"sampling_percentage": 50})
    second, after = build("probabilistic_sampler", {"sampling_percentage": 50})
    other, sibling = build("probabilistic_sampler", {"sampling_percentage": 25})
    first.consume(batch_of(body, count(Signal.TRACES, body)))
    second.consume(between.batches[0])
    other.consume(batch_of(body, count(Signal.TRACES, body)))
    kept = messages_of(Signal.TRACES, after.batches[0].body)
    assert {span.trace_state for span in kept} == {"ot=th:c"}
    assert 0 < len(kept) < between.items
    assert [span.trace_id for span in kept] == [
        span.trace_id for span in messages_of(Signal.TRACES, sibling.batches[0].body)
    ], "half of a half are the same traces as a quarter"


def test_what_the_next_stage_refuses_is_not_settled():
    body = traces(random.Random(7))
    items = count(Signal.TRACES, body)
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 50})
    batch = batch_of(body, items)
    catcher.errors = [Overloaded("full")]
    with pytest.raises(Overloaded):
        stage.consume(batch)
    ((receipt, _),) = batch.shares
    assert receipt.pending == items
    stage.consume(batch)
    catcher.batches[0].settle(Outcome.DELIVERED)
    assert receipt.pending == 0


def test_nothing_is_forwarded_if_nothing_is_kept():
    body = traces(random.Random(7))
    items = count(Signal.TRACES, body)
    stage, catcher = build("probabilistic_sampler", {})
    batch = batch_of(body, items)
    stage.consume(batch)
    assert catcher.batches == []
    assert batch.shares[0][0].count(Outcome.SAMPLED_OUT) == items


def test_log_records_are_sampled():
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(100):
        records.add(trace_id=random.Random(number).randbytes(16), severity_text=str(number))
    records.add(severity_text="without id")
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 50})
    batch = batch_of(request.SerializeToString(), 101, Signal.LOGS)
    stage.consume(batch)
    ((receipt, _),) = batch.shares
    kept = messages_of(Signal.LOGS, catcher.batches[0].body)
    assert [record.severity_text for record in kept] == [
        record.severity_text
        for record in records
        if record.trace_id and int.from_bytes(record.trace_id[9:], "big") >= NEVER // 2
    ]
    assert (receipt.count(Outcome.FILTERED), receipt.pending) == (1, len(kept))
    name = "otelcol_processor_probabilistic_sampler_count_logs_sampled"
    value = stage.context.registry.value
    assert value(name, sampled="true", policy="trace_id_w3c") == len(kept)
    assert value(name, sampled="false") == 101 - len(kept)
    assert value(name, policy="missing_randomness") == 1


def test_log_records_without_ids_can_be_sampled_by_an_attribute():
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(100):
        records.add().attributes.add(key="foo").value.string_value = str(number)
    settings = {"sampling_percentage": 15.3, "hash_seed": 22, "attribute_source": "record", "from_attribute": "foo"}
    stage, catcher = build("probabilistic_sampler", {**settings, "sampling_priority": "bar"})
    stage.consume(batch_of(request.SerializeToString(), 100, Signal.LOGS))
    assert 5 <= catcher.items <= 30


def test_decisions_are_counted():
    body = traces(random.Random(9), spans=100)
    items = count(Signal.TRACES, body)
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 50})
    stage.consume(batch_of(body, items))
    for name in ("count_spans_processed_total", "count_traces_sampled"):
        full = f"otelcol_processor_probabilistic_sampler_{name}"
        value = stage.context.registry.value
        assert value(full, sampled="true", policy="trace_id_w3c") == catcher.items
        assert value(full, sampled="false", policy="trace_id_w3c") == items - catcher.items


def test_the_mode_follows_the_hash_seed():
    def modes(**options):
        judges = build("probabilistic_sampler", options)[0]._judges
        return judges[Signal.TRACES].settings.mode, judges[Signal.LOGS].settings.mode

    assert modes() == ("proportional", "proportional")
    assert modes(hash_seed=1) == ("hash_seed", "hash_seed")
    assert modes(attribute_source="record") == ("proportional", "hash_seed")
    assert modes(hash_seed=1, mode="equalizing") == ("equalizing", "equalizing")


def test_a_body_that_does_not_parse():
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 50})
    with pytest.raises(MalformedError):
        stage.consume(batch_of(b"\x0a\x04\x12\x02\x12\x7f", 1))
    assert catcher.batches == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sampling_percentage": -1}, "greater than or equal to 0"),
        ({"sampling_percentage": float("nan")}, "finite"),
        ({"sampling_percentage": 1e-20}, "too small"),
        ({"sampling_precision": 0}, "greater than or equal to 1"),
        ({"sampling_precision": 15}, "less than or equal to 14"),
        ({"attribute_source": "traceid"}, "traceID"),
        ({"mode": "random"}, "proportional"),
        ({"hash_seed": -1}, "greater than or equal to 0"),
    ],
)
def test_invalid_settings(settings, told):
    with pytest.raises(ValidationError, match=told):
        Config.model_validate(settings)


def test_more_than_everything_is_everything():
    body = traces(random.Random(11))
    stage, catcher = build("probabilistic_sampler", {"sampling_percentage": 1e300})
    stage.consume(batch_of(body, count(Signal.TRACES, body)))
    assert catcher.items == count(Signal.TRACES, body)
