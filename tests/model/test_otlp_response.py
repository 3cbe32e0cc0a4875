import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelwp_agent.model.otlp_response import partial_success, rejected

KINDS = [
    (ExportTraceServiceResponse, "rejected_spans"),
    (ExportMetricsServiceResponse, "rejected_data_points"),
    (ExportLogsServiceResponse, "rejected_log_records"),
]
INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(("kind", "field"), KINDS)
@given(items=INT64, message=st.text())
def test_reads_what_the_official_messages_write(kind, field, items, message):
    response = kind()
    setattr(response.partial_success, field, items)
    response.partial_success.error_message = message
    assert rejected(response.SerializeToString()) == (max(items, 0), message)


@pytest.mark.parametrize(("kind", "field"), KINDS)
@given(items=st.integers(0, 2**63 - 1), message=st.text())
def test_writes_what_the_official_messages_read(kind, field, items, message):
    response = kind.FromString(partial_success(items, message))
    assert response.HasField("partial_success")
    assert getattr(response.partial_success, field) == items
    assert response.partial_success.error_message == message
    assert rejected(partial_success(items, message)) == (items, message)


def test_an_empty_answer_rejects_nothing():
    assert rejected(b"") == (0, "")
    assert rejected(ExportTraceServiceResponse(partial_success={}).SerializeToString()) == (0, "")


def test_unknown_fields_are_passed_over():
    known = partial_success(3, "why")
    unknown = b"\x10\x01" + b"\x1a\x02ab" + b"\x25\x00\x00\x00\x00" + b"\x29" + bytes(8)
    assert rejected(unknown + known + unknown) == (3, "why")


@given(st.binary(max_size=64))
def test_no_bytes_break_it(data):
    items, message = rejected(data)
    assert 0 <= items < 2**63
    assert isinstance(message, str)
