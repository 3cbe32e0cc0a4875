"""Convert heartbeats to metrics and events to log records, as serialized OTLP requests.

docs/topics/fleet.md lists the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otelwp_agent import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence

SCOPE = "otelwp_agent.heartbeat"
"""Name of the instrumentation scope."""
METRICS = 2
"""Metrics of a heartbeat."""
_SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_MESSAGE = "message"


class PluginResource(NamedTuple):
    """The installation that telemetry is about."""

    service_name: str
    tenant: str
    installation: str
    cms: str
    environment: str
    plugin_version: str
    site_id: str = ""
    sdk_language: str = ""
    cms_version: str = ""
    php_version: str = ""

    def attributes(self) -> dict[str, str]:
        """Return the resource attributes; values that are not known are left out."""
        found = {
            "service.name": self.service_name,
            "service.namespace": self.tenant,
            "service.instance.id": self.installation,
            "service.version": self.plugin_version,
            "deployment.environment.name": self.environment,
            "telemetry.sdk.language": self.sdk_language,
            "process.runtime.name": "php" if self.php_version else "",
            "process.runtime.version": self.php_version,
            "plugin.cms.name": self.cms,
            "plugin.cms.version": self.cms_version,
            "plugin.site.id": self.site_id,
        }
        return {name: value for name, value in found.items() if value}


def heartbeat_metrics(plugin: PluginResource, errors_last_hour: float, time: int) -> bytes:
    """Return the metrics of a heartbeat; `time` is in nanoseconds since 1970."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    _set(resource.resource.attributes, plugin.attributes())
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = SCOPE, __version__
    for name, unit, value in (("plugin.up", "1", 1.0), ("plugin.errors_last_hour", "{error}", errors_last_hour)):
        metric = scope.metrics.add()
        metric.name, metric.unit = name, unit
        point = metric.gauge.data_points.add()
        point.time_unix_nano, point.as_double = time, value
    body: bytes = request.SerializeToString()
    return body


def event_log(  # noqa: PLR0913 - the members of an event
    plugin: PluginResource,
    event_type: str,
    severity: str,
    data: Mapping[str, Any],
    stack_trace: str,
    *,
    event_id: str | None,
    time: int,
    observed: int,
) -> bytes:
    """Return the log record of an event; times are in nanoseconds since 1970."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _set(resource.resource.attributes, plugin.attributes())
    scope = resource.scope_logs.add()
    scope.scope.name, scope.scope.version = SCOPE, __version__
    record = scope.log_records.add()
    record.time_unix_nano, record.observed_time_unix_nano = time, observed
    record.severity_number = _SEVERITIES[severity]  # type: ignore[assignment] # an enum, which is an int
    record.severity_text = severity.upper()
    record.event_name = f"plugin.{event_type}"
    message = data.get(_MESSAGE)
    record.body.string_value = message if isinstance(message, str) and message else event_type
    attributes: dict[str, Any] = {"plugin.event.type": event_type}
    if event_id is not None:
        attributes["plugin.event.id"] = event_id
    if stack_trace:
        attributes["exception.stacktrace"] = stack_trace
    attributes |= {f"plugin.event.data.{name}": value for name, value in data.items() if name != _MESSAGE}
    _set(record.attributes, attributes)
    body: bytes = request.SerializeToString()
    return body


def _set(target: MutableSequence[KeyValue], attributes: Mapping[str, Any]) -> None:
    target.extend([KeyValue(key=name, value=_any(value)) for name, value in attributes.items()])


def _any(value: Any) -> AnyValue:  # noqa: ANN401 - a value of JSON
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue() if value is None else AnyValue(string_value=orjson.dumps(value).decode())
