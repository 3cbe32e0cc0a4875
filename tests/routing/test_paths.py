"""The paths of each signal."""

from __future__ import annotations

import pytest

from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.facts import Depth
from otelwp_agent.routing.paths import ENUMS, UnknownPathError, reader_of


@pytest.mark.parametrize(
    ("path", "key", "context", "signal", "full"),
    [
        ("attributes", "a", "resource", Signal.LOGS, 'resource.attributes["a"]'),
        ("attributes", "a", "log", Signal.LOGS, 'log.attributes["a"]'),
        ("instrumentation_scope.name", None, "resource", Signal.METRICS, "scope.name"),
        ("severity_number", None, "log", Signal.LOGS, "log.severity_number"),
        ("name", None, "metric", Signal.METRICS, "metric.name"),
        ("request", "X-Tenant", "span", Signal.TRACES, 'request["X-Tenant"]'),
    ],
)
def test_a_path_gets_its_context(path, key, context, signal, full):
    assert reader_of(path, key, context, signal).path == full


@pytest.mark.parametrize(
    ("path", "key", "signal"),
    [
        ("span.name", None, Signal.LOGS),
        ("metric.attributes", "a", Signal.METRICS),
        ("attributes", None, Signal.TRACES),
        ("name", "a", Signal.TRACES),
        ("resource.attribute", "a", Signal.TRACES),
    ],
)
def test_other_paths_do_not_exist(path, key, signal):
    with pytest.raises(UnknownPathError):
        reader_of(path, key, "span", signal)


def test_names_of_numbers():
    assert ENUMS["SEVERITY_NUMBER_INFO"] == 9
    assert ENUMS["SEVERITY_NUMBER_FATAL4"] == 24
    assert ENUMS["SPAN_KIND_CONSUMER"] == 5
    assert ENUMS["STATUS_CODE_ERROR"] == 2


def test_only_durations_and_bodies_have_too_many_values_to_be_remembered():
    assert reader_of("duration_ms", None, "span", Signal.TRACES).raw is None
    assert reader_of("body", None, "log", Signal.LOGS).raw is None
    reader = reader_of("attributes", "a", "span", Signal.TRACES)
    assert reader.raw is not None
    assert reader.depth is Depth.ITEM
