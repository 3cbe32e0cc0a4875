import structlog
from structlog.testing import capture_logs

from otelwp_agent.codecs import mending
from otelwp_agent.codecs.jaeger.receiving import Traces
from otelwp_agent.codecs.mending import Mended
from otelwp_agent.errors import MalformedError
from otelwp_agent.telemetry.metrics import Registry

WORDPRESS = "WordPress/6.1.9; http://shop.example:8980"


def test_each_kind_is_told_once_for_a_site():
    mended = Mended("jaeger", structlog.get_logger(), Registry())
    traces = Traces()
    traces.service = "shop"
    traces.mend("id_padded", 2)
    with capture_logs() as logs:
        mended.add(traces)
        traces.mend("time_in_s")
        mended.add(traces)
        mended.add(traces, WORDPRESS)
        mended.add(traces)
    assert [(line["site"], [*line["kinds"]]) for line in logs] == [
        ("shop", ["id_padded"]),
        ("shop", ["time_in_s"]),
        ("shop.example:8980", ["id_padded", "time_in_s"]),
    ]


def test_it_counts_by_kind_and_site_whatever_is_forgotten(monkeypatch):
    monkeypatch.setattr(mending, "MAX_SENDERS", 2)
    registry = Registry()
    mended = Mended("jaeger", structlog.get_logger(), registry)
    for number in range(6):
        traces = Traces()
        traces.service = f"shop{number % 3}"
        traces.mend("id_padded", 2)
        mended.add(traces)
    assert [
        registry.value("otelwp_receiver_mended", receiver="jaeger", kind="id_padded", site=f"shop{number}")
        for number in range(3)
    ] == [4, 4, 4]


def test_a_sender_is_told_once_that_nothing_of_it_can_be_used():
    mended = Mended("jaeger", structlog.get_logger(), Registry())
    with capture_logs() as logs:
        mended.tell(WORDPRESS, MalformedError("no spans"))
        mended.tell(WORDPRESS, MalformedError("no spans"))
        mended.tell("curl/8", MalformedError("no JSON"))
    assert [(line["site"], line["reason"]) for line in logs] == [
        ("shop.example:8980", "no spans"),
        ("unknown", "no JSON"),
    ]
