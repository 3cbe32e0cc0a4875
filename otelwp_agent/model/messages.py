"""Full OTLP message classes, imported only for the signals that need them (each takes a megabyte)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from google.protobuf.message import Message


def request_class(signal: Signal) -> type[Message]:
    """Return the message class of a signal's export request, such as `ExportTraceServiceRequest`."""
    service: Any
    if signal is Signal.TRACES:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service  # noqa: PLC0415

        return service.ExportTraceServiceRequest  # type: ignore[no-any-return]  # generated, without types
    if signal is Signal.METRICS:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service  # noqa: PLC0415

        return service.ExportMetricsServiceRequest  # type: ignore[no-any-return]
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415

    return service.ExportLogsServiceRequest  # type: ignore[no-any-return]
