from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.config.blocks import Queue, Retry
from otelwp_agent.errors import PermanentError, RetryableError
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.breaker import Breaker, Permit
from otelwp_agent.sending.concurrency import Concurrency
from otelwp_agent.sending.metrics import INSTRUMENTS, ExporterMetrics, breaker_of
from otelwp_agent.sending.queue import SendingQueue
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import FakeClock, NoHost


@pytest.fixture
def clock():
    return FakeClock(100.0)


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def context(clock, registry):
    return Context(ComponentId("otlp_http"), Kind.EXPORTER, registry, structlog.get_logger(), clock, NoHost())


@pytest.fixture
def make(context):
    def make(signal: Signal = Signal.TRACES, breaker: Breaker | None = None, **queue: object) -> ExporterMetrics:
        breaker = breaker or breaker_of(context, Retry(), lambda: 0.5)
        return ExporterMetrics(context, signal, SendingQueue(Queue(**queue), "otlp_http"), breaker, Concurrency(1, 10))

    return make


@pytest.mark.parametrize(
    ("signal", "items"),
    [(Signal.TRACES, "spans"), (Signal.METRICS, "metric_points"), (Signal.LOGS, "log_records")],
)
def test_names_and_labels_are_the_collectors(make, registry, signal, items):
    metrics = make(signal)
    metrics.sent(3)
    metrics.lost(2)
    metrics.dropped(1, "http_401", PermanentError("no"))
    text = registry.expose()
    assert f'otelcol_exporter_sent_{items}{{exporter="otlp_http"}} 3\n' in text
    assert f'otelcol_exporter_enqueue_failed_{items}{{exporter="otlp_http"}} 2\n' in text
    assert f'otelcol_exporter_send_failed_{items}{{exporter="otlp_http"}} 1\n' in text
    assert f'otelcol_exporter_queue_size{{exporter="otlp_http",data_type="{signal.value}"}} 0\n' in text
    assert f'otelcol_exporter_queue_capacity{{exporter="otlp_http",data_type="{signal.value}"}} 1000\n' in text


def test_emits_nothing_that_is_not_declared(make, registry):
    metrics = make()
    metrics.dropped(1, "malformed", "no")
    assert registry.names() <= {instrument.name for instrument in INSTRUMENTS}


def test_health_follows_failure_and_success(make, clock):
    metrics = make()
    assert metrics.health().healthy
    metrics.failed(RetryableError("first"))
    clock.now += 90
    metrics.failed(RetryableError("cannot connect to x: connection refused"))
    sick = metrics.health()
    assert not sick.healthy
    assert sick.message == "sending has failed for 1m30s: cannot connect to x: connection refused"
    assert sick.details["consecutive_failures"] == 2
    assert sick.details["failing_for_seconds"] == 90
    metrics.sent(1)
    well = metrics.health()
    assert (well.healthy, well.message, well.details["consecutive_failures"]) == (True, "", 0)
    assert "last_error" not in well.details


def test_failing_is_told_when_it_begins_and_when_it_ends(make):
    metrics = make()
    with capture_logs() as logs:
        for _ in range(2):
            metrics.failed(RetryableError("busy", reason="http_503"))
        metrics.sent(1)
        metrics.sent(1)
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("warning", "sending fails"),
        ("info", "sending works again"),
    ]
    assert logs[0]["reason"] == "http_503"


def test_drops_are_told_now_and_then_with_their_sum(make, clock):
    metrics = make()
    with capture_logs() as logs:
        for _ in range(3):
            metrics.dropped(2, "http_401", "no")
        metrics.dropped(5, "malformed", "400")
        clock.now += 10
        metrics.dropped(1, "http_401", "no")
    assert [(log["reason"], log["items"], log["log_level"]) for log in logs] == [
        ("http_401", 2, "error"),
        ("malformed", 5, "error"),
        ("http_401", 5, "error"),
    ]


def test_what_a_stop_drops_is_told_once(make):
    metrics = make()
    with capture_logs() as logs:
        for _ in range(3):
            metrics.dropped(2, "shutdown", "")
        metrics.close()
        metrics.close()
    assert [(log["event"], log["reason"], log["items"]) for log in logs] == [("items dropped", "shutdown", 6)]
    assert metrics.left == 6


def test_a_closed_account_takes_its_gauges_along(make, registry):
    make().close()
    assert "otelcol_exporter_queue_size{" not in registry.expose()


def test_a_successor_keeps_its_gauges(make, registry):
    old = make()
    make(queue_size=7)
    old.close()
    assert registry.value("otelcol_exporter_queue_capacity") == 7


def test_what_a_stop_left_to_the_journal_is_told_apart_from_what_it_dropped(make):
    with capture_logs() as logs:
        for items, dropped in [(3, 0), (4, 1)]:
            metrics = make()
            metrics.abandoned(items, dropped)
            metrics.close()
            assert (metrics.kept, metrics.left) == (items - dropped, dropped)
    assert [(log["event"], log["log_level"], log["items"], log.get("kept")) for log in logs] == [
        ("items kept in the journal", "info", 3, None),
        ("items dropped", "error", 1, 3),
    ]


def test_each_change_of_the_breaker_is_told_and_counted(context, registry, clock, make):
    breaker = breaker_of(context, Retry(), lambda: 0.5)
    metrics = make(breaker=breaker)
    with capture_logs() as logs:
        for _ in range(5):
            breaker.failed(Permit.TRY, clock.now)
        sick = metrics.health()
        clock.now += 5
        probe = breaker.acquire(clock.now)
        assert registry.value("otelwp_exporter_breaker_state", data_type="traces") == 1
        assert metrics.health().details["breaker"] == "half_open"
        breaker.failed(probe, clock.now)
        clock.now += 10
        breaker.acquire(clock.now)
        breaker.answered()
    assert not sick.healthy
    assert sick.message == "nothing is sent: the circuit breaker is open"
    assert (sick.details["breaker"], sick.details["next_try_in_seconds"]) == ("open", 5)
    assert metrics.health().healthy
    assert [(log["log_level"], log["event"], log.get("seconds")) for log in logs] == [
        ("warning", "circuit breaker opened", 5),
        ("info", "circuit breaker opened", 10),
        ("info", "circuit breaker closed", None),
    ]
    for state, times in [("open", 2), ("half_open", 2), ("closed", 1)]:
        assert registry.value("otelwp_exporter_breaker_transitions", exporter="otlp_http", state=state) == times


def test_without_retries_no_breaker_opens(context, clock):
    breaker = breaker_of(context, Retry(enabled=False), lambda: 0.5)
    for _ in range(100):
        breaker.failed(Permit.TRY, clock.now)
    assert breaker.calm
