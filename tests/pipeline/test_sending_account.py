from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import PermanentError, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.queue import SendingQueue
from otelwp_agent.pipeline.sending_account import INSTRUMENTS, SendingAccount
from otelwp_agent.telemetry.metrics import Registry


class NoHost:
    ready = True

    def components(self):
        return ()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def make(clock, registry):
    def make(signal: Signal = Signal.TRACES, **queue: object) -> SendingAccount:
        context = Context(ComponentId("otlp_http"), Kind.EXPORTER, registry, structlog.get_logger(), clock, NoHost())
        return SendingAccount(context, signal, SendingQueue(Queue(**queue), "otlp_http"))

    return make


@pytest.mark.parametrize(
    ("signal", "items"),
    [(Signal.TRACES, "spans"), (Signal.METRICS, "metric_points"), (Signal.LOGS, "log_records")],
)
def test_names_and_labels_are_the_collectors(make, registry, signal, items):
    account = make(signal)
    account.sent(3)
    account.refused(2)
    account.dropped(1, "http_401", PermanentError("no"))
    text = registry.expose()
    assert f'otelcol_exporter_sent_{items}{{exporter="otlp_http"}} 3\n' in text
    assert f'otelcol_exporter_enqueue_failed_{items}{{exporter="otlp_http"}} 2\n' in text
    assert f'otelcol_exporter_send_failed_{items}{{exporter="otlp_http"}} 1\n' in text
    assert f'otelcol_exporter_queue_size{{exporter="otlp_http",data_type="{signal.value}"}} 0\n' in text
    assert f'otelcol_exporter_queue_capacity{{exporter="otlp_http",data_type="{signal.value}"}} 1000\n' in text


def test_emits_nothing_that_is_not_declared(make, registry):
    account = make()
    account.dropped(1, "malformed", "no")
    assert registry.names() <= {instrument.name for instrument in INSTRUMENTS}


def test_health_follows_failure_and_success(make, clock):
    account = make()
    assert account.health().healthy
    account.failed(RetryableError("first"))
    clock.now += 90
    account.failed(RetryableError("cannot connect to x: connection refused"))
    sick = account.health()
    assert not sick.healthy
    assert sick.message == "sending has failed for 1m30s: cannot connect to x: connection refused"
    assert sick.details["consecutive_failures"] == 2
    assert sick.details["failing_for_seconds"] == 90
    account.sent(1)
    well = account.health()
    assert (well.healthy, well.message, well.details["consecutive_failures"]) == (True, "", 0)
    assert "last_error" not in well.details


def test_failing_is_told_when_it_begins_and_when_it_ends(make):
    account = make()
    with capture_logs() as logs:
        for _ in range(2):
            account.failed(RetryableError("busy", reason="http_503"))
        account.sent(1)
        account.sent(1)
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("warning", "sending fails"),
        ("info", "sending works again"),
    ]
    assert logs[0]["reason"] == "http_503"


def test_drops_are_told_now_and_then_with_their_sum(make, clock):
    account = make()
    with capture_logs() as logs:
        for _ in range(3):
            account.dropped(2, "http_401", "no")
        account.dropped(5, "malformed", "400")
        clock.now += 10
        account.dropped(1, "http_401", "no")
    assert [(log["reason"], log["items"], log["log_level"]) for log in logs] == [
        ("http_401", 2, "error"),
        ("malformed", 5, "error"),
        ("http_401", 5, "error"),
    ]


def test_what_a_stop_drops_is_told_once(make):
    account = make()
    with capture_logs() as logs:
        for _ in range(3):
            account.dropped(2, "shutdown", "")
        account.close()
        account.close()
    assert [(log["event"], log["reason"], log["items"]) for log in logs] == [("items dropped", "shutdown", 6)]
    assert account.left == 6


def test_a_closed_account_takes_its_gauges_along(make, registry):
    make().close()
    assert "otelcol_exporter_queue_size{" not in registry.expose()


def test_a_successor_keeps_its_gauges(make, registry):
    old = make()
    make(queue_size=7)
    old.close()
    assert registry.value("otelcol_exporter_queue_capacity") == 7
