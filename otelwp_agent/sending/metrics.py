"""Instruments, log events and health of one sender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import ComponentHealth, Kind
from otelwp_agent.component_errors import Bugs
from otelwp_agent.config.blocks import CircuitBreaker
from otelwp_agent.config.types import format_duration
from otelwp_agent.errors import ConsumeError, RetryableError
from otelwp_agent.model.ledger_report import LedgerLine
from otelwp_agent.model.receipt import DEAD_LETTER, SHUTDOWN
from otelwp_agent.model.signal import Signal
from otelwp_agent.sending.breaker import Breaker, State
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Counter, Gauge, Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.config.blocks import Retry
    from otelwp_agent.sending.concurrency import Concurrency
    from otelwp_agent.sending.queue import SendingQueue

_ONE = ("exporter",)
_TWO = ("exporter", "data_type")

SENT = {
    signal: Instrument(
        f"otelcol_exporter_sent_{signal.items}", f"{signal.items} that the backend accepted.", labels=_ONE
    )
    for signal in Signal
}
SEND_FAILED = {
    signal: Instrument(
        f"otelcol_exporter_send_failed_{signal.items}",
        f"{signal.items} that were given up, for any reason. Items that are retried are not counted.",
        labels=_ONE,
    )
    for signal in Signal
}
ENQUEUE_FAILED = {
    signal: Instrument(
        f"otelcol_exporter_enqueue_failed_{signal.items}",
        f"{signal.items} lost because the queue was full and the exporter isolated; other exporters received them.",
        labels=_ONE,
    )
    for signal in Signal
}
QUEUE_SIZE = Instrument(
    "otelcol_exporter_queue_size",
    "Size of the queue, batches being sent included, in the unit of `sizer`.",
    InstrumentKind.GAUGE,
    _TWO,
)
QUEUE_CAPACITY = Instrument(
    "otelcol_exporter_queue_capacity", "Capacity of the queue, in the unit of `sizer`.", InstrumentKind.GAUGE, _TWO
)
QUEUE_BYTES = Instrument(
    "otelwp_exporter_queue_bytes",
    "Memory held by the queue, batches being sent included.",
    InstrumentKind.GAUGE,
    _TWO,
)
IN_FLIGHT = Instrument(
    "otelcol_exporter_in_flight_requests",
    "Batches being sent or waiting for a retry.",
    InstrumentKind.GAUGE,
    _TWO,
)
RETRIES = Instrument("otelwp_exporter_retries", "Attempts to send after the first.", labels=_TWO)
DROPPED = Instrument(
    "otelwp_exporter_dropped_items",
    "Items given up and lost, by reason. Items that are kept as dead letters are in otelwp_dead_letter_items.",
    labels=(*_TWO, "reason"),
)
DURATION = Instrument(
    "otelwp_exporter_send_duration_seconds",
    "Duration of one attempt, successful or not.",
    InstrumentKind.HISTOGRAM,
    _TWO,
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BREAKER_STATE = Instrument(
    "otelwp_exporter_breaker_state",
    "State of the circuit breaker, one for all data types of an exporter: 0 closed, 1 half-open, 2 open.",
    InstrumentKind.GAUGE,
    _TWO,
)
BREAKER_TRANSITIONS = Instrument(
    "otelwp_exporter_breaker_transitions",
    "State changes of the circuit breaker, by new state.",
    labels=("exporter", "state"),
)
ISOLATED = Instrument(
    "otelwp_exporter_isolated",
    "1 while the exporter is isolated: its full queue made no progress for `isolate_after`, and items are lost.",
    InstrumentKind.GAUGE,
    _TWO,
)
CONCURRENCY = Instrument(
    "otelwp_exporter_concurrency",
    "Limit of concurrent sends, from `min_concurrency` to `num_consumers`.",
    InstrumentKind.GAUGE,
    _TWO,
)
INSTRUMENTS = (
    *SENT.values(),
    *SEND_FAILED.values(),
    *ENQUEUE_FAILED.values(),
    *(QUEUE_SIZE, QUEUE_CAPACITY, QUEUE_BYTES, IN_FLIGHT, RETRIES, DROPPED, DURATION),
    *(BREAKER_STATE, BREAKER_TRANSITIONS, ISOLATED, CONCURRENCY),
)
"""Instruments of every exporter, whatever its type."""


def breaker_of(context: Context, retry: Retry, random: Callable[[], float]) -> Breaker:
    """Return the circuit breaker of the exporter that `context` names; its state changes are logged and counted.

    Without retries it never opens: a failed batch is given up at once, so no batch could wait for the probe.
    """
    exporter, log, registry = str(context.id), context.log, context.registry
    before = State.CLOSED

    def on_transition(state: State) -> None:
        nonlocal before
        registry.counter(BREAKER_TRANSITIONS, exporter=exporter, state=state.label).add()
        if state is State.CLOSED:
            log.info("circuit breaker closed")
        elif state is State.HALF_OPEN:
            log.debug("circuit breaker half-open")
        else:
            report = log.warning if before is State.CLOSED else log.info
            report("circuit breaker opened", seconds=round(max(0.0, breaker.until - context.clock()), 3))
        before = state

    settings = retry.circuit_breaker if retry.enabled else CircuitBreaker(enabled=False)
    breaker = Breaker(settings, random, on_transition)
    return breaker


class ExporterMetrics:
    """Counters, log events and health of one sender.

    Items since it was made: `delivered`, `left` (dropped by a stop) and `kept` (abandoned by a stop, and kept by the
    journal).
    """

    def __init__(
        self, context: Context, signal: Signal, queue: SendingQueue, breaker: Breaker, concurrency: Concurrency
    ) -> None:
        """Bind the instruments of the exporter that `context` names, for one signal."""
        self.delivered = 0
        self.left = 0
        self.kept = 0
        self._breaker = breaker
        self._concurrency = concurrency
        self._context = context
        self._id = str(context.id)
        self._type = signal.value
        self._queue = queue
        self._log = context.log.bind(data_type=self._type)
        self._bugs = Bugs(lambda: self._log)
        self._failures = 0
        self._failing_since = 0.0
        self._last_error = ""
        self._drops: dict[str, tuple[Counter | None, LogLimit]] = {}
        self._dropped: dict[str, int] = {}
        """Items since it was made, by reason: the counters are those of the senders before it, too."""
        self._resent = 0
        """Items that it has accepted again, as dead letters that were resent."""

        registry, exporter = context.registry, self._id
        self._sent = registry.counter(SENT[signal], exporter=exporter)
        self._send_failed = registry.counter(SEND_FAILED[signal], exporter=exporter)
        self._enqueue_failed = registry.counter(ENQUEUE_FAILED[signal], exporter=exporter)
        self._retries = registry.counter(RETRIES, exporter=exporter, data_type=self._type)
        self._duration = registry.histogram(DURATION, exporter=exporter, data_type=self._type)
        self._gauges = [
            self._gauge(QUEUE_SIZE, lambda: queue.size),
            self._gauge(QUEUE_CAPACITY, lambda: queue.capacity),
            self._gauge(QUEUE_BYTES, lambda: queue.bytes),
            self._gauge(IN_FLIGHT, lambda: self.in_flight),
            self._gauge(BREAKER_STATE, lambda: breaker.state),
            self._gauge(ISOLATED, lambda: float(queue.space.isolated > 0)),
            self._gauge(CONCURRENCY, lambda: concurrency.limit),
        ]

    @property
    def in_flight(self) -> int:
        """Batches being sent or waiting for a retry."""
        return self._concurrency.sending + len(self._queue.later)

    def line(self) -> LedgerLine:
        """Return the sender's ledger. Each figure is counted independently."""
        queue, dropped = self._queue, self._dropped
        return LedgerLine(
            "exporter",
            self._id,
            accepted=queue.taken - self._resent,
            delivered=self.delivered,
            dropped=sum(dropped.values()),
            in_flight=queue.items + self.kept,
            reasons=dict(dropped),
        )

    def lost(self, items: int) -> None:
        """Count items that the queue did not accept and that will not be offered again."""
        self._enqueue_failed.add(items)

    def retried(self) -> None:
        """Count an attempt after the first."""
        self._retries.add()

    def attempted(self, seconds: float) -> None:
        """Record an attempt that took `seconds`."""
        self._duration.observe(seconds)

    def sent(self, items: int) -> None:
        """Count delivered items; log if sending had failed before."""
        self._sent.add(items)
        self.delivered += items
        if self._failures:
            self._log.info("sending works again", failures=self._failures)
            self._failures = 0
            self._last_error = ""

    def failed(self, error: ConsumeError) -> None:
        """Record a failure; log the first one in a row."""
        self._last_error = str(error)
        self._failures += 1
        if self._failures == 1:
            self._failing_since = self._context.clock()
            if isinstance(error, RetryableError):
                self._log.warning("sending fails", error=self._last_error, reason=error.reason)

    def resent(self, items: int, reason: str) -> None:
        """Count items that were kept as a dead letter because of `reason` as in flight again."""
        reason = DEAD_LETTER + reason
        items = min(items, self._dropped.get(reason, 0))  # fewer if an earlier sender kept them
        if items:
            self._dropped[reason] -= items
            self._resent += items

    def dropped(self, items: int, reason: str, error: object) -> None:
        """Count items that were given up, and log them at intervals; what a stop drops is logged once, by `close`."""
        self._send_failed.add(items)
        kept = reason.startswith(DEAD_LETTER)
        if reason not in self._drops:
            registry = self._context.registry
            lost = None if kept else registry.counter(DROPPED, exporter=self._id, data_type=self._type, reason=reason)
            self._drops[reason] = lost, LogLimit(self._context.clock)
        counter, limit = self._drops[reason]
        if counter is not None:
            counter.add(items)
        self._dropped[reason] = self._dropped.get(reason, 0) + items
        if reason == SHUTDOWN:
            self.left += items
        elif total := limit.take(items):
            event = "items kept as dead letters" if kept else "items dropped"
            self._log.error(event, reason=reason.removeprefix(DEAD_LETTER), items=total, error=str(error))

    def abandoned(self, items: int, dropped: int) -> None:
        """Count items that a stop released: `dropped` of them are lost, the others are in the journal."""
        self.kept += items - dropped
        if dropped:
            self.dropped(dropped, SHUTDOWN, "")

    def exporter_failed(self, error: Exception) -> None:
        """Log a bug in the exporter: with traceback the first time, later only the number."""
        self._bugs.report(error, self._context.clock)

    def bug(self, event: str) -> None:
        """Log the exception that is being handled, which is a bug, with its traceback."""
        self._log.exception(event)

    def health(self) -> ComponentHealth:
        """Return the exporter's health: unhealthy from a failed attempt to the next success."""
        isolated = self._queue.space.isolated > 0
        details: dict[str, object] = {
            "data_type": self._type,
            "queue_size": self._queue.size,
            "queue_capacity": self._queue.capacity,
            "queue_bytes": self._queue.bytes,
            "in_flight": self.in_flight,
            "consecutive_failures": self._failures,
            "breaker": self._breaker.state.label,
            "concurrency": self._concurrency.limit,
            "isolated": isolated,
        }
        message = ""
        now = self._context.clock()
        if now < self._breaker.until < float("inf"):
            details["next_try_in_seconds"] = round(self._breaker.until - now, 3)
        closed = self._breaker.state is State.CLOSED
        if not closed:
            message = f"nothing is sent: the circuit breaker is {self._breaker.state.label}"
        if self._failures:
            seconds = now - self._failing_since
            details["last_error"] = self._last_error
            details["failing_for_seconds"] = round(seconds, 3)
            message = f"sending has failed for {format_duration(round(seconds))}: {self._last_error}"
        if isolated:
            why = "isolated: the queue is full without progress, and what it cannot accept is lost"
            message = f"{why}; {message}" if message else why
        healthy = closed and not self._failures and not isolated
        return ComponentHealth(Kind.EXPORTER, self._id, healthy, message, details)

    def close(self) -> None:
        """Log what a stop released; remove the gauges, unless a successor (after a reload) has replaced them."""
        if self._gauges and self.left:
            error = "the agent stopped before they left"
            self._log.error("items dropped", reason=SHUTDOWN, items=self.left, kept=self.kept, error=error)
        elif self._gauges and self.kept:
            self._log.info("items kept in the journal", items=self.kept)
        if self._gauges and all(gauge.callback is read for gauge, read in self._gauges):
            self._context.registry.forget(exporter=self._id, data_type=self._type)
        self._gauges = []

    def _gauge(self, instrument: Instrument, read: Callable[[], float]) -> tuple[Gauge, Callable[[], float]]:
        return self._context.registry.gauge(instrument, read, exporter=self._id, data_type=self._type), read
