from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind, Registry

SENT = Instrument("otelcol_exporter_sent_spans", "Spans sent.", labels=("exporter",))
QUEUE = Instrument("otelcol_exporter_queue_size", "In the queue.", InstrumentKind.GAUGE, ("exporter",))
SIZES = Instrument("otelwp_batch_size", "Items a batch.", InstrumentKind.HISTOGRAM, ("processor",), (10, 100.5))


def samples(registry):
    """Parse what the registry writes; the parser appends `_total` to counters; the Collector does not."""
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(registry.expose())
        for sample in family.samples
    }


def test_the_same_labels_are_the_same_cell():
    registry = Registry()
    registry.counter(SENT, exporter="a").add(2)
    registry.counter(SENT, exporter="a").add()
    registry.counter(SENT, exporter="b").add(10)
    assert samples(registry) == {
        ("otelcol_exporter_sent_spans", (("exporter", "a"),)): 3,
        ("otelcol_exporter_sent_spans", (("exporter", "b"),)): 10,
    }
    assert registry.value("otelcol_exporter_sent_spans") == 13
    assert registry.value("otelcol_exporter_sent_spans", exporter="a") == 3
    assert registry.value("unheard_of") == 0


def test_text_is_what_prometheus_reads_line_by_line():
    registry = Registry()
    registry.counter(SENT, exporter="otlp").add(5)
    registry.gauge(QUEUE, lambda: 1.5, exporter="otlp")
    registry.histogram(SIZES, processor="batch").observe(10)
    registry.histogram(SIZES, processor="batch").observe(11)
    registry.histogram(SIZES, processor="batch").observe(1000)
    assert registry.expose() == (
        "# HELP otelcol_exporter_queue_size In the queue.\n"
        "# TYPE otelcol_exporter_queue_size gauge\n"
        'otelcol_exporter_queue_size{exporter="otlp"} 1.5\n'
        "# HELP otelcol_exporter_sent_spans Spans sent.\n"
        "# TYPE otelcol_exporter_sent_spans counter\n"
        'otelcol_exporter_sent_spans{exporter="otlp"} 5\n'
        "# HELP otelwp_batch_size Items a batch.\n"
        "# TYPE otelwp_batch_size histogram\n"
        'otelwp_batch_size_bucket{processor="batch",le="10"} 1\n'
        'otelwp_batch_size_bucket{processor="batch",le="100.5"} 2\n'
        'otelwp_batch_size_bucket{processor="batch",le="+Inf"} 3\n'
        'otelwp_batch_size_sum{processor="batch"} 1021\n'
        'otelwp_batch_size_count{processor="batch"} 3\n'
    )


def test_callbacks_are_read_when_somebody_asks():
    registry = Registry()
    now = [1.0]
    registry.counter(SENT, lambda: now[0], exporter="a")
    registry.gauge(QUEUE, lambda: now[0] * 2, exporter="a")
    now[0] = 7
    assert registry.value("otelcol_exporter_sent_spans") == 7
    assert registry.value("otelcol_exporter_queue_size") == 14
    registry.counter(SENT, lambda: 8.0, exporter="a")
    assert registry.value("otelcol_exporter_sent_spans") == 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (0.1, "0.1"),
        (-3.0, "-3"),
        (1e300, "1e+300"),
        (2**53 - 1, "9007199254740991"),
    ],
)
def test_numbers(value, text):
    registry = Registry()
    registry.gauge(QUEUE, exporter="a").set(value)
    assert registry.expose().splitlines()[-1].split()[-1] == text


@given(st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False), max_size=5))
def test_any_label_value_and_any_number_come_back(cells):
    registry = Registry()
    for label, value in cells.items():
        registry.gauge(QUEUE, exporter=label).set(value)
    assert samples(registry) == {
        ("otelcol_exporter_queue_size", (("exporter", label),)): value for label, value in cells.items()
    }


def test_help_is_escaped():
    registry = Registry()
    registry.counter(Instrument("one", "a\\b\nc")).add()
    (family,) = text_string_to_metric_families(registry.expose())
    assert family.documentation == "a\\b\nc"


def test_wrong_use_is_refused():
    registry = Registry()
    with pytest.raises(ValueError, match="has the labels"):
        registry.counter(SENT)
    with pytest.raises(ValueError, match="has the labels"):
        registry.counter(SENT, exporter="a", more="b")
    registry.counter(SENT, exporter="a")
    with pytest.raises(ValueError, match="two different declarations"):
        registry.counter(Instrument(SENT.name, "otherwise", labels=("exporter",)), exporter="a")
    with pytest.raises(ValueError, match="is a counter"):
        registry.gauge(SENT, exporter="a")


def test_removed_cells_are_no_longer_reported_and_start_again():
    registry, requests = Registry(), Instrument("requests", "Requests.", labels=("tenant", "limit"))
    registry.remove(requests, tenant="a")
    for tenant in ("a", "b"):
        registry.counter(requests, tenant=tenant, limit="x").add(3)
    registry.remove(requests, tenant="a")
    assert registry.value("requests") == 3
    assert registry.value("requests", tenant="a") == 0
    registry.counter(requests, tenant="a", limit="x").add()
    assert registry.value("requests", tenant="a") == 1


def test_forget_drops_gauges_and_keeps_counters():
    registry = Registry()
    registry.counter(SENT, exporter="a").add(2)
    registry.gauge(QUEUE, exporter="a").set(1)
    registry.gauge(QUEUE, exporter="b").set(4)
    registry.forget(exporter="a")
    assert registry.value("otelcol_exporter_sent_spans") == 2
    assert registry.value("otelcol_exporter_queue_size") == 4


def test_info_replaces_what_was_there():
    registry = Registry()
    registry.info("target_info", "Who.", {"b": "1", "callback": "2"})
    assert registry.expose().splitlines()[-1] == 'target_info{b="1",callback="2"} 1'
    registry.info("target_info", "Who.", {"a": "3"})
    assert registry.expose().splitlines()[-1] == 'target_info{a="3"} 1'
