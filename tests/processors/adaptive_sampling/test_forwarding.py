"""Decisions by trace ids alone are immediate, equal for all parts of a trace, and within the budget."""

import pytest
from pydantic import ValidationError

from otelwp_agent.errors import Overloaded
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.processors.adaptive_sampling import Config
from otelwp_agent.testing import FakeClock
from tests.kit.sampled_traces import (
    CHANCE,
    batch_of,
    deliver,
    kept_ids,
    metric,
    receipt_of,
    sampler,
    span,
    spans_of,
    trace_id,
    tree,
)

ALONE = {"by_trace_id": True, "per": [], **CHANCE}


def half(clock):
    """Return a sampler that keeps about every second trace by now."""
    stage, catcher = sampler(clock, target={"traces_per_second": 50}, **ALONE)
    for number in range(2000):
        stage.consume(batch_of(tree(trace_id(number))))
        clock.now += 0.01
    deliver(catcher)
    catcher.batches.clear()
    return stage, catcher


def test_a_part_of_a_trace_is_decided_about_at_once_and_others_follow():
    clock = FakeClock(100.0)
    stage, catcher = half(clock)
    kept, dropped = trace_id(9001, 255), trace_id(9002, 0)
    batches = [
        batch_of([span(kept, 1, 0), span(dropped, 1, 0)]),
        batch_of([span(dropped), span(kept), span(dropped, 2, 0)]),
    ]
    for batch in batches:
        stage.consume(batch)
    assert kept_ids(catcher) == {kept}
    assert len(spans_of(catcher)) == 2
    assert all(each.trace_state.startswith("ot=th:") for each in spans_of(catcher))
    assert stage.health().details["waiting_traces"] == 0
    deliver(catcher)
    assert [receipt_of(batch).pending for batch in batches] == [0, 0]
    assert [receipt_of(batch).count(Outcome.SAMPLED_OUT) for batch in batches] == [1, 2]
    assert metric(stage, "late_spans", decision="kept") == 1


def test_the_budget_pays_for_every_part():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, target={"spans_per_second": 100}, **ALONE)
    for number in range(6000):
        parts = tree(trace_id(number), 4)
        stage.consume(batch_of(parts[:1]))
        stage.consume(batch_of(parts[1:]))
        clock.now += 0.01
    assert catcher.items / 60 == pytest.approx(100, rel=0.15), "of 400 spans a second"


def test_a_part_that_comes_again_is_paid_for_once():
    clock = FakeClock(100.0)
    stage, catcher = sampler(clock, target={"spans_per_second": 100}, **ALONE)
    batch = batch_of(tree(trace_id(1), 3))
    catcher.errors = [Overloaded("full")]
    with pytest.raises(Overloaded):
        stage.consume(batch)
    spent = stage.controller.guard.spent
    stage.consume(batch)
    assert stage.controller.guard.spent == spent == 3
    stage.consume(batch_of([span(trace_id(1), 7, 0)]))
    assert stage.controller.guard.spent == 4


def test_earlier_sampling_is_honoured():
    clock = FakeClock(100.0)
    stage, catcher = half(clock)
    ids = [trace_id(9001, 255), trace_id(9002, 255)]
    stage.consume(batch_of([span(each, trace_state="ot=th:f8") for each in ids]))
    stage.consume(batch_of([span(trace_id(9003, 255), trace_state="ot=rv:00000000000000")]))
    stage.consume(batch_of([span(trace_id(9004, 255), trace_state="ot=th:f8"), span(trace_id(9005, 255))]))
    assert kept_ids(catcher) == {*ids, trace_id(9004, 255), trace_id(9005, 255)}
    states = {each.trace_id: each.trace_state for each in spans_of(catcher)}
    assert states[ids[0]] == states[trace_id(9004, 255)] == "ot=th:f8"
    assert states[trace_id(9005, 255)] != "ot=th:f8"


def test_invalid_ids_are_filtered_out():
    stage, catcher = sampler(target={"spans_per_second": 100}, **ALONE)
    batch = batch_of([span(bytes(16)), span(b""), span(trace_id(1))])
    stage.consume(batch)
    assert kept_ids(catcher) == {trace_id(1)}
    assert receipt_of(batch).count(Outcome.FILTERED) == 2
    assert metric(stage, "odd_traces", kind="invalid_trace_id") == 1, "they belong to no trace, so they count as one"


def test_an_observer_is_called_for_every_decision():
    stage, _ = sampler(target={"spans_per_second": 100}, **ALONE)
    heard = []
    stage.observe(lambda *told: heard.append(told))
    batch = batch_of(tree(trace_id(1)))
    stage.consume(batch)
    stage.consume(batch_of([span(trace_id(1), 7, 0)]))
    assert [(key, of, spans, keep) for key, of, spans, _, keep, _ in heard] == [
        (trace_id(1), (), 3, True),
        (trace_id(1), None, 1, True),
    ]
    assert all(size > 0 for _, _, _, size, _, _ in heard)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"per": ["service.name"]}, "need more: per"),
        ({"always_keep": {}}, "always_keep.errors, always_keep.slow, always_keep.first_seen, always_keep.releases"),
        ({"drop": {"bots": True}}, "need more: drop"),
        ({"sites": {"rules": [{"keep": 0.5}]}}, "need more: sites"),
        ({"flight_recorder": {"enabled": True}}, "need more: flight_recorder"),
        ({"target": {"bytes_per_day": "1GiB"}}, "need more: a target in bytes or cost"),
    ],
)
def test_by_trace_id_refuses_settings_that_need_more(settings, named):
    usual = {"target": {"spans_per_second": 1}, **ALONE}
    Config.model_validate(usual)
    with pytest.raises(ValidationError, match=named):
        Config.model_validate({**usual, **settings})
