from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.errors import MalformedError, Overloaded
from otelwp_agent.model import native
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors import resource as module
from otelwp_agent.processors.resource import Config
from tests.kit.otlp import full, meaning, signals_and_requests
from tests.kit.stages import batch_of, build

UPSERT = {"key": "env", "value": "prod", "action": "upsert"}
DELETE = {"key": "service.name", "action": "delete"}
RESOURCES = {Signal.TRACES: "resource_spans", Signal.METRICS: "resource_metrics", Signal.LOGS: "resource_logs"}


def through(body, actions, signal=Signal.TRACES, origin=None):
    stage, catcher = build("resource", {"attributes": actions})
    stage.consume(batch_of(body, 1, signal, origin))
    (batch,) = catcher.batches
    return batch


@settings(max_examples=200)
@given(signals_and_requests())
def test_resources_are_changed_and_nothing_else(drawn):
    """Compare with the same change of the fully parsed request."""
    signal, body = drawn
    expected = full(signal, body)
    for group in getattr(expected, RESOURCES[signal]):
        attributes = group.resource.attributes
        found = [pair for pair in attributes if pair.key == "env"]
        if not found:
            attributes.add(key="env").value.string_value = "prod"
        elif meaning_of(found[0].value) != b"\n\x04prod":
            found[0].value.Clear()
            found[0].value.string_value = "prod"
        for pair in [pair for pair in attributes if pair.key == "service.name"]:
            attributes.remove(pair)
    batch = through(body, [UPSERT, DELETE], signal)
    assert meaning(signal, batch.body) == expected.SerializeToString(deterministic=True)


def meaning_of(message):
    return message.SerializeToString(deterministic=True)


@given(signals_and_requests(), st.sampled_from([DELETE, {"key": "nobody has this", "action": "hash"}]))
def test_what_does_not_change_is_the_same_batch_or_the_same_meaning(drawn, action):
    signal, body = drawn
    batch = through(body, [action], signal)
    if b"service.name" not in body:
        assert batch.body is body


def test_a_resource_that_is_not_there_gets_attributes():
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="x")
    got = full(Signal.TRACES, through(request.SerializeToString(), [UPSERT]).body)
    assert [pair.key for pair in got.resource_spans[0].resource.attributes] == ["env"]


def body_of(*services):
    request = ExportTraceServiceRequest()
    for service in services:
        request.resource_spans.add().resource.attributes.add(key="service.name").value.string_value = service
    return request.SerializeToString()


def test_senders_are_distinguished():
    stage, catcher = build("resource", {"attributes": [{"key": "site", "from_context": "x-site", "action": "upsert"}]})
    for headers in ({"x-site": "a"}, {"x-site": "b"}, {}, {"x-site": "a"}):
        stage.consume(batch_of(body_of("s"), 1, origin=Origin(headers=headers)))
    got = [full(Signal.TRACES, batch.body).resource_spans[0].resource.attributes for batch in catcher.batches]
    assert [[pair.value.string_value for pair in each] for each in got] == [["s", "a"], ["s", "b"], ["s"], ["s", "a"]]


def test_equal_resources_are_edited_once_in_python(monkeypatch):
    monkeypatch.setattr(native, "extension", None)
    stage, _ = build("resource", {"attributes": [UPSERT]})
    worked_out = []
    apply = stage._apply
    monkeypatch.setattr(stage, "_apply", lambda *given: worked_out.append(1) or apply(*given))
    for _ in range(3):
        stage.consume(batch_of(body_of("a", "b", "a"), 3))
    assert len(worked_out) == 2


def test_memory_of_resources_is_bounded(monkeypatch):
    monkeypatch.setattr(native, "extension", None)
    monkeypatch.setattr(module, "_CACHED", 10)
    stage, catcher = build("resource", {"attributes": [UPSERT]})
    for number in range(50):
        stage.consume(batch_of(body_of(str(number), "x" * 5000), 2))
    assert len(stage._edited) == 10
    assert all(len(key[0]) < 100 for key in stage._edited)
    assert all(b"prod" in batch.body for batch in catcher.batches)


def test_receipts_and_refusals_pass():
    stage, catcher = build("resource", {"attributes": [UPSERT]})
    batch = batch_of(body_of("a"), 1)
    catcher.errors = [Overloaded("full")]
    with pytest.raises(Overloaded):
        stage.consume(batch)
    stage.consume(batch)
    assert catcher.batches[0].shares is batch.shares


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x03\x0a\x01\xff"])
def test_a_body_that_does_not_parse(body):
    with pytest.raises(MalformedError):
        through(body, [UPSERT])


def test_the_collectors_example_loads():
    Config.model_validate(
        {
            "attributes": [
                {"key": "cloud.availability_zone", "value": "zone-1", "action": "upsert"},
                {"key": "k8s.cluster.name", "from_attribute": "k8s-cluster", "action": "insert"},
                {"key": "redundant-attribute", "action": "delete"},
            ]
        }
    )
    with pytest.raises(ValidationError):
        Config.model_validate({"attributes": []})
