import pytest

from otelwp_agent.model.projections import split
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import items_of, messages_of, request


@pytest.mark.parametrize("signal", Signal)
def test_items_are_the_same_however_they_are_batched(signal):
    body = request(signal, ["shop"])
    whole = items_of(signal, body)
    assert len(whole) > 20
    parts = split(signal, body, [5, len(whole) - 5])
    assert [item for part in parts for item in items_of(signal, part)] == whole


@pytest.mark.parametrize("signal", Signal)
def test_items_differ_by_their_resource_and_scope(signal):
    first, second = items_of(signal, request(signal, resources=2, scopes=1, items=1))
    assert first.resource != second.resource
    assert first.item != second.item


def test_a_metric_is_an_item_for_each_point():
    body = request(Signal.METRICS, resources=1, scopes=1, items=1)
    (metric,) = messages_of(Signal.METRICS, body)
    assert len(items_of(Signal.METRICS, body + body)) == 2
    assert len(metric.gauge.data_points) == 1
