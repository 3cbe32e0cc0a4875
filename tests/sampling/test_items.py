from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelwp_agent.errors import MalformedError
from otelwp_agent.sampling.consistent import (
    NEVER,
    TraceState,
    format_randomness,
    format_threshold,
    hashed_randomness,
    hashed_threshold,
    threshold_of,
)
from otelwp_agent.sampling.items import ItemVerdict, LogSampler, Settings, SpanSampler

HALF = 1 << 55
HIGH = (NEVER - 1).to_bytes(16, "big")[:9] + b"\xff" * 7
LOW = b"\x01" * 9 + b"\x00" * 6 + b"\x01"


def settings(probability=0.5, mode="proportional", *, fail_closed=True, precision=4, seed=0):
    threshold = hashed_threshold(probability * 100) if mode == "hash_seed" else threshold_of(probability, precision)
    return Settings(mode, threshold, probability, precision, seed, fail_closed)


def span(randomness=None, state="", priority=None, **fields):
    """Return a span with this randomness in its trace id."""
    if randomness is not None:
        fields["trace_id"] = b"\x05" * 9 + randomness.to_bytes(7, "big")
    made = Span(trace_state=state, name="n", **fields)
    if priority is not None:
        set_value(made.attributes.add(key="sampling.priority").value, priority)
    return made


def record(randomness=None, attributes=None):
    made = LogRecord(severity_text="INFO")
    if randomness is not None:
        made.trace_id = b"\x05" * 9 + randomness.to_bytes(7, "big")
    for key, value in (attributes or {}).items():
        set_value(made.attributes.add(key=key).value, value)
    return made


def set_value(value, raw):
    kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}
    setattr(value, kind[type(raw)], raw)


def attributes_of(log_record):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in log_record.attributes}


def judge(sampler, item):
    """Return the verdict and the forwarded item, and check that only its sampling fields changed."""
    verdict, data, policy = sampler.judge(item.SerializeToString())
    after = type(item).FromString(data)
    if verdict:
        assert after == item
    return verdict, after, policy


randomnesses = st.integers(0, NEVER - 1)
probabilities = st.floats(0.001, 1)


@given(randomnesses, probabilities, st.sampled_from(["proportional", "equalizing"]))
def test_kept_spans_carry_the_threshold(randomness, probability, mode):
    sampler = SpanSampler(settings(probability, mode))
    before = span(randomness, "congo=1")
    verdict, after, policy = judge(sampler, before)
    threshold = threshold_of(probability, 4)
    assert (verdict is ItemVerdict.KEPT) == (randomness >= threshold)
    assert policy == "trace_id_w3c"
    if not verdict:
        assert after.trace_state == f"ot=th:{format_threshold(threshold)},congo=1"
        after.trace_state = before.trace_state
        assert after == before


@given(randomnesses, probabilities, probabilities)
def test_what_the_lower_keeps_the_higher_keeps(randomness, one, other):
    low, high = (SpanSampler(settings(each)) for each in sorted([one, other]))
    data = span(randomness).SerializeToString()
    assert low.judge(data).verdict >= high.judge(data).verdict


@given(randomnesses, st.integers(0, NEVER - 1), probabilities, st.sampled_from(["proportional", "equalizing"]))
def test_thresholds_are_only_raised(randomness, arrived, probability, mode):
    sampler = SpanSampler(settings(probability, mode))
    before = span(randomness, f"ot=th:{format_threshold(arrived)};x:1,a=b")
    verdict, after, _ = judge(sampler, before)
    if randomness < arrived:
        assert verdict is ItemVerdict.INCONSISTENT_THRESHOLD
        return
    state = TraceState.parse(after.trace_state)
    if verdict is ItemVerdict.KEPT:
        assert arrived <= state.threshold <= randomness
        if mode == "equalizing":
            assert state.threshold == max(arrived, threshold_of(probability, 4))
        assert after.trace_state.endswith(";x:1,a=b")
    else:
        assert verdict is ItemVerdict.SAMPLED_OUT


def test_proportional_takes_its_share_of_what_was_left_and_equalizing_the_share_of_all():
    quarter = span(NEVER - 1, "ot=th:c")
    assert judge(SpanSampler(settings(0.5)), quarter)[1].trace_state == "ot=th:e"
    assert judge(SpanSampler(settings(0.5, "equalizing")), quarter)[1].trace_state == "ot=th:c"
    assert judge(SpanSampler(settings(0.125, "equalizing")), quarter)[1].trace_state == "ot=th:e"


def test_explicit_randomness_goes_before_the_trace_id():
    sampler = SpanSampler(settings())
    verdict, after, policy = judge(sampler, span(0, f"ot=rv:{format_randomness(NEVER - 1)}"))
    assert (verdict, policy) == (ItemVerdict.KEPT, "sampling_randomness")
    assert after.trace_state == "ot=th:8;rv:ffffffffffffff"
    assert judge(sampler, span(NEVER - 1, f"ot=rv:{format_randomness(0)}"))[0] is ItemVerdict.SAMPLED_OUT


@pytest.mark.parametrize(
    ("made", "error", "after_all"),
    [
        (span(), ItemVerdict.MISSING_RANDOMNESS, ""),
        (span(trace_id=bytes(16)), ItemVerdict.MISSING_RANDOMNESS, ""),
        (span(trace_id=b"short"), ItemVerdict.MISSING_RANDOMNESS, ""),
        (span(HALF, "ot=th:c,a=b"), ItemVerdict.INCONSISTENT_THRESHOLD, "a=b"),
        (span(NEVER - 1, "ot=th:nonsense"), ItemVerdict.MALFORMED_SAMPLING, "ot=th:nonsense"),
    ],
)
def test_errors_are_left_out_or_kept_as_configured(made, error, after_all):
    assert judge(SpanSampler(settings()), made)[0] is error
    verdict, after, _ = judge(SpanSampler(settings(0.001, fail_closed=False)), made)
    assert verdict is ItemVerdict.KEPT
    assert after.trace_state == after_all


@pytest.mark.parametrize("priority", [1, 0.5, "1", 100])
def test_priority_keeps_without_a_threshold(priority):
    verdict, after, policy = judge(SpanSampler(settings(0.0)), span(0, "ot=th:0;x:1", priority))
    assert (verdict, after.trace_state, policy) == (ItemVerdict.KEPT, "ot=x:1", "sampling_priority")


@pytest.mark.parametrize("priority", [0, 0.0, "0", "0.0"])
def test_priority_0_drops(priority):
    sampler = SpanSampler(settings(1.0, fail_closed=False))
    assert judge(sampler, span(NEVER - 1, "", priority))[0] is ItemVerdict.SAMPLED_OUT


@pytest.mark.parametrize("priority", [-1, "high", True, "nan", b"0"])
def test_other_priorities_leave_it_to_chance(priority):
    assert judge(SpanSampler(settings()), span(NEVER - 1, "", priority))[1].trace_state == "ot=th:8"
    assert judge(SpanSampler(settings()), span(0, "", priority))[0] is ItemVerdict.SAMPLED_OUT


@given(st.binary(min_size=16, max_size=16), probabilities, st.integers(0, 2**32 - 1))
def test_hashing_writes_the_randomness_that_it_made(trace_id, probability, seed):
    sampler = SpanSampler(settings(probability, "hash_seed", seed=seed))
    verdict, after, policy = judge(sampler, Span(trace_id=trace_id))
    randomness = hashed_randomness(trace_id, seed)
    threshold = hashed_threshold(probability * 100)
    assert (verdict is ItemVerdict.KEPT) == (randomness >= threshold)
    assert policy == "trace_id_hash"
    if verdict is ItemVerdict.KEPT:
        state = TraceState.parse(after.trace_state)
        assert (state.randomness, state.threshold) == (randomness, threshold)


@pytest.mark.parametrize("state", ["ot=th:0", "ot=rv:ffffffffffffff"])
def test_hashing_does_not_go_with_trace_state(state):
    assert judge(SpanSampler(settings(1.0, "hash_seed")), span(5, state))[0] is ItemVerdict.SAMPLING_IN_USE


def test_bytes_that_are_no_item():
    for sampler in (SpanSampler(settings()), LogSampler(settings())):
        with pytest.raises(MalformedError):
            sampler.judge(b"\x0a\xff")


def test_a_trace_state_that_is_no_utf8_is_kept_as_it_is():
    data = b"\x0a\x10" + b"\xff" * 16 + b"\x1a\x04a=\xff\xfe"
    verdict, after, _ = SpanSampler(settings()).judge(data)
    assert verdict is ItemVerdict.KEPT
    assert b"ot=th:8,a=\xff\xfe" in after


# --- log records ---


@given(randomnesses, probabilities)
def test_records_carry_their_threshold_in_an_attribute(randomness, probability):
    verdict, after, policy = judge(LogSampler(settings(probability)), record(randomness, {"a": 1}))
    threshold = threshold_of(probability, 4)
    assert (verdict is ItemVerdict.KEPT) == (randomness >= threshold)
    assert policy == "trace_id_w3c"
    if verdict is ItemVerdict.KEPT:
        assert attributes_of(after) == {"a": 1, "sampling.threshold": format_threshold(threshold)}


def test_records_without_trace_id_are_judged_by_an_attribute():
    sampler = LogSampler(settings(), attribute="pod")
    kept = 0
    for number in range(200):
        verdict, after, policy = judge(sampler, record(None, {"pod": number}))
        assert policy == "pod"
        randomness = hashed_randomness(str(number).encode(), 0)
        assert (verdict is ItemVerdict.KEPT) == (randomness >= HALF)
        if verdict is ItemVerdict.KEPT:
            kept += 1
            told = {"sampling.threshold": "8", "sampling.randomness": format_randomness(randomness)}
            assert attributes_of(after) == {"pod": number, **told}
            assert judge(LogSampler(settings(0.5, "equalizing")), after)[:2] == (ItemVerdict.KEPT, after)
    assert 70 < kept < 130


def test_records_can_be_judged_by_the_attribute_alone():
    sampler = LogSampler(settings(1.0), trace_id=False, attribute="pod")
    assert judge(sampler, record(5, {"pod": b"\x01"}))[2] == "pod"
    assert judge(sampler, record(5, {"pod": ""}))[0] is ItemVerdict.MISSING_RANDOMNESS
    assert judge(sampler, record(5))[0] is ItemVerdict.MISSING_RANDOMNESS


def test_records_hash_their_trace_id_if_they_have_one():
    sampler = LogSampler(settings(1.0, "hash_seed", seed=22), attribute="pod")
    trace_id = record(5).trace_id
    after = judge(sampler, record(5, {"pod": "x"}))[1]
    assert attributes_of(after)["sampling.randomness"] == format_randomness(hashed_randomness(trace_id, 22))
    after = judge(sampler, record(None, {"pod": "x"}))[1]
    assert attributes_of(after)["sampling.randomness"] == format_randomness(hashed_randomness(b"x", 22))


@pytest.mark.parametrize(
    ("made", "mode", "error"),
    [
        (record(), "proportional", ItemVerdict.MISSING_RANDOMNESS),
        (record(HALF, {"sampling.threshold": "c"}), "equalizing", ItemVerdict.INCONSISTENT_THRESHOLD),
        (record(HALF, {"sampling.threshold": "C"}), "proportional", ItemVerdict.MALFORMED_SAMPLING),
        (record(HALF, {"sampling.randomness": "1"}), "proportional", ItemVerdict.MALFORMED_SAMPLING),
        (record(HALF, {"sampling.threshold": "0"}), "hash_seed", ItemVerdict.SAMPLING_IN_USE),
        (record(HALF, {"sampling.randomness": "f" * 14}), "hash_seed", ItemVerdict.SAMPLING_IN_USE),
    ],
)
def test_errors_of_records(made, mode, error):
    assert judge(LogSampler(settings(1.0, mode)), made)[0] is error
    verdict, after, _ = judge(LogSampler(settings(0.001, mode, fail_closed=False)), made)
    assert verdict is ItemVerdict.KEPT
    if error is ItemVerdict.INCONSISTENT_THRESHOLD:
        assert attributes_of(after) == {}
    else:
        assert after == made


@pytest.mark.parametrize(
    ("randomness", "priority", "kept", "threshold"),
    [
        (NEVER - 1, 0, False, ""),
        (NEVER // 4, 75, True, "4"),
        (NEVER // 4, 100.0, True, "0"),
        (NEVER // 4, 1000, True, "0"),
        (NEVER // 4, 74, False, ""),
        (HALF, 1, True, "8"),
        (HALF, -1, True, "8"),
        (NEVER // 4, None, False, ""),
    ],
)
def test_records_can_ask_for_a_higher_percentage(randomness, priority, kept, threshold):
    asked = {} if priority is None else {"p": priority}
    verdict, after, _ = judge(LogSampler(settings(), priority="p"), record(randomness, asked))
    assert verdict is (ItemVerdict.KEPT if kept else ItemVerdict.SAMPLED_OUT)
    assert attributes_of(after).get("sampling.threshold", "") == threshold


def test_priority_keeps_records_that_have_no_randomness():
    assert judge(LogSampler(settings(), priority="p"), record(None, {"p": 1}))[0] is ItemVerdict.KEPT
