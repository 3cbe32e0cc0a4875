import json

from otelwp_agent.codecs.heartbeat.otlp import METRICS, PluginResource, event_log, heartbeat_metrics
from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.model.projections import count
from otelwp_agent.model.signal import Signal
from tests.kit.jaeger import attributes_of

PLUGIN = PluginResource(
    "plugin", "acme", "id-1", "woocommerce", "production", "1.3.5", cms_version="6.4", php_version="8.1.0"
)
RESOURCE = {
    "service.name": "plugin",
    "service.namespace": "acme",
    "service.instance.id": "id-1",
    "service.version": "1.3.5",
    "deployment.environment.name": "production",
    "process.runtime.name": "php",
    "process.runtime.version": "8.1.0",
    "plugin.cms.name": "woocommerce",
    "plugin.cms.version": "6.4",
}


def test_metrics_of_a_heartbeat():
    body = heartbeat_metrics(PLUGIN, 0.5, 17)
    assert count(Signal.METRICS, body) == METRICS
    (found,) = json.loads(encode(Signal.METRICS, body))["resourceMetrics"]
    assert attributes_of(found["resource"]) == RESOURCE
    metrics = found["scopeMetrics"][0]["metrics"]
    assert [(each["name"], each["unit"], each["gauge"]["dataPoints"]) for each in metrics] == [
        ("plugin.up", "1", [{"timeUnixNano": "17", "asDouble": 1.0}]),
        ("plugin.errors_last_hour", "{error}", [{"timeUnixNano": "17", "asDouble": 0.5}]),
    ]


def test_the_log_record_of_an_event():
    data = {"message": "No funds", "amount": 55000, "rate": 0.5, "ok": False, "none": None, "list": [1, {"a": "b"}]}
    body = event_log(PLUGIN, "payment_failed", "error", data, "#0 x", event_id="e1", time=5, observed=6)
    assert count(Signal.LOGS, body) == 1
    (found,) = json.loads(encode(Signal.LOGS, body))["resourceLogs"]
    assert attributes_of(found["resource"]) == RESOURCE
    (record,) = found["scopeLogs"][0]["logRecords"]
    assert (record["timeUnixNano"], record["observedTimeUnixNano"]) == ("5", "6")
    assert (record["severityNumber"], record["severityText"]) == (17, "ERROR")
    assert (record["eventName"], record["body"]) == ("plugin.payment_failed", {"stringValue": "No funds"})
    assert attributes_of(record) == {
        "plugin.event.type": "payment_failed",
        "plugin.event.id": "e1",
        "exception.stacktrace": "#0 x",
        "plugin.event.data.amount": "55000",
        "plugin.event.data.rate": 0.5,
        "plugin.event.data.ok": False,
        "plugin.event.data.none": None,
        "plugin.event.data.list": '[1,{"a":"b"}]',
    }


def test_an_event_without_message_is_named_by_its_type():
    body = event_log(PLUGIN, "info", "info", {}, "", event_id=None, time=5, observed=5)
    (found,) = json.loads(encode(Signal.LOGS, body))["resourceLogs"]
    assert found["scopeLogs"][0]["logRecords"][0]["body"] == {"stringValue": "info"}
