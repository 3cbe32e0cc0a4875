import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.model import projections
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing.corpus import LEVELS, TYPES, any_value, batch_of, make_corpus, request, unknown

WORDS = ("shop", "user.email")
OF_SIGNAL = {
    Signal.TRACES: {"resource", "scope", "item", "event", "link"},
    Signal.METRICS: {"resource", "scope", "item", "point"},
    Signal.LOGS: {"resource", "scope", "item"},
}


def test_every_type_of_value_is_made():
    kinds = {any_value(type_).WhichOneof("value") for type_ in TYPES}
    assert kinds == {
        "string_value", "bool_value", "int_value", "double_value", "bytes_value", "array_value", "kvlist_value", None,
    }  # fmt: skip


@pytest.mark.parametrize("signal", Signal)
def test_batches_are_requests_with_the_items_that_they_claim(signal):
    batches = make_corpus(signal, WORDS)
    for batch in batches:
        assert projections.check(signal, batch.body) == batch.items == sum(items for _, items in batch.shares)
    assert [len(batch.shares) for batch in batches] == [1, 3]
    assert all(items > 0 for batch in batches for _, items in batch.shares)


@pytest.mark.parametrize("signal", Signal)
def test_every_level_has_unknown_fields(signal):
    body = request(signal, WORDS)
    assert {level for level in LEVELS if unknown(level) in body} == OF_SIGNAL[signal]


def test_words_are_keys_of_every_type_at_every_level_and_names_of_services():
    message = ExportTraceServiceRequest.FromString(request(Signal.TRACES, WORDS))
    services = [group.resource.attributes[0].value.string_value for group in message.resource_spans]
    assert services[:2] == [*WORDS]
    assert len(services) == 8
    scopes = [scope for group in message.resource_spans for scope in group.scope_spans]
    spans = [span for scope in scopes for span in scope.spans]
    levels = [
        [group.resource for group in message.resource_spans],
        [scope.scope for scope in scopes],
        spans,
        [event for span in spans for event in span.events],
        [link for span in spans for link in span.links],
    ]
    for level in levels:
        assert set(WORDS) < {pair.key for each in level for pair in each.attributes}
    found = [pair.value.WhichOneof("value") for span in spans for pair in span.attributes if pair.key == "user.email"]
    assert len(set(found)) == len(TYPES)
    assert any(all(pair.key != "shop" for pair in span.attributes) for span in spans), "not on every span"


def test_shares_are_as_asked_for():
    body = request(Signal.LOGS, resources=1, scopes=1, items=3)
    assert [items for _, items in batch_of(Signal.LOGS, body).shares] == [3]
    assert [items for _, items in batch_of(Signal.LOGS, body, [1, 2]).shares] == [1, 2]
