import structlog
from structlog.testing import capture_logs

from otelwp_agent.codecs import repairs
from otelwp_agent.codecs.jaeger.receiving import Traces
from otelwp_agent.codecs.repairs import Repairs
from otelwp_agent.errors import MalformedError
from otelwp_agent.telemetry.metrics import Registry

WORDPRESS = "WordPress/6.1.9; http://shop.example:8980"


def test_each_kind_is_logged_once_for_a_site():
    counted = Repairs("jaeger", structlog.get_logger(), Registry())
    traces = Traces()
    traces.service = "shop"
    traces.repaired("id_padded", 2)
    with capture_logs() as logs:
        counted.add(traces)
        traces.repaired("time_in_s")
        counted.add(traces)
        counted.add(traces, WORDPRESS)
        counted.add(traces)
    assert [(line["site"], [*line["kinds"]]) for line in logs] == [
        ("shop", ["id_padded"]),
        ("shop", ["time_in_s"]),
        ("shop.example:8980", ["id_padded", "time_in_s"]),
    ]


def test_it_counts_by_kind_and_site_when_the_cache_is_cleared(monkeypatch):
    monkeypatch.setattr(repairs, "MAX_SENDERS", 2)
    registry = Registry()
    counted = Repairs("jaeger", structlog.get_logger(), registry)
    for number in range(6):
        traces = Traces()
        traces.service = f"shop{number % 3}"
        traces.repaired("id_padded", 2)
        counted.add(traces)
    assert [
        registry.value("otelwp_receiver_mended", receiver="jaeger", kind="id_padded", site=f"shop{number}")
        for number in range(3)
    ] == [4, 4, 4]


def test_the_refusal_of_a_sender_is_logged_once():
    counted = Repairs("jaeger", structlog.get_logger(), Registry())
    with capture_logs() as logs:
        counted.report_refused(WORDPRESS, MalformedError("no spans"))
        counted.report_refused(WORDPRESS, MalformedError("no spans"))
        counted.report_refused("curl/8", MalformedError("no JSON"))
    assert [(line["site"], line["reason"]) for line in logs] == [
        ("shop.example:8980", "no spans"),
        ("unknown", "no JSON"),
    ]
