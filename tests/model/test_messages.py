from __future__ import annotations

import pytest

from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal


@pytest.mark.parametrize(
    ("signal", "name", "field"),
    [
        (Signal.TRACES, "ExportTraceServiceRequest", "resource_spans"),
        (Signal.METRICS, "ExportMetricsServiceRequest", "resource_metrics"),
        (Signal.LOGS, "ExportLogsServiceRequest", "resource_logs"),
    ],
)
def test_each_signal_has_its_request(signal, name, field):
    request = request_class(signal)
    assert request.DESCRIPTOR.name == name
    assert request_class(signal) is request
    assert [known.name for known in request.DESCRIPTOR.fields] == [field]
