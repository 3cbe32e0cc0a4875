"""Forward heartbeats and events that are stored to the pipelines, as metrics and log records.

They are stored already, and their senders are not asked to repeat them: what the pipelines refuse is lost and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.codecs.heartbeat import otlp
from otelwp_agent.codecs.heartbeat.otlp import PluginResource
from otelwp_agent.errors import ConsumeError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from otelwp_agent.component import Context, ReceiverSink
    from otelwp_agent.control.fleet.beats import Beat
    from otelwp_agent.control.fleet.events import EventSource, PluginEvent
    from otelwp_agent.transport.http_messages import Head

LOST = Instrument(
    "otelwp_heartbeat_telemetry_lost",
    "Metrics and log records of stored heartbeats and events that the pipelines refused.",
    labels=("receiver", "signal"),
)


class PluginTelemetry:
    """Makes telemetry of heartbeats and events, and forwards it."""

    def __init__(self, context: Context, service_name: str, wall: Callable[[], float]) -> None:
        """Forward for a receiver; `wall` returns the time in seconds since 1970."""
        self._receiver = str(context.id)
        self._service_name = service_name
        self._wall = wall
        self._log = context.log
        self._limit = LogLimit(context.clock)
        self._lost = {
            signal: context.registry.counter(LOST, receiver=self._receiver, signal=signal.value)
            for signal in (Signal.METRICS, Signal.LOGS)
        }

    def forward_beat(self, sinks: Mapping[Signal, ReceiverSink], head: Head, beat: Beat, installation: str) -> None:
        """Forward the metrics of a heartbeat."""
        if Signal.METRICS not in sinks:
            return
        plugin = PluginResource(
            self._service_name,
            beat.tenant,
            installation,
            beat.cms,
            beat.environment,
            beat.plugin_version,
            beat.site_id,
            beat.sdk_language,
            beat.cms_version,
            beat.php_version,
        )
        metrics = otlp.heartbeat_metrics(plugin, beat.errors_last_hour, self._now())
        self._forward(sinks, head, Signal.METRICS, metrics, otlp.METRICS)

    def forward_event(
        self,
        sinks: Mapping[Signal, ReceiverSink],
        head: Head,
        event: PluginEvent,
        source: EventSource,
        sent: datetime | None,
    ) -> None:
        """Forward the log record of an event that was sent at `sent`."""
        if Signal.LOGS not in sinks:
            return
        plugin = PluginResource(
            self._service_name,
            event.tenant,
            source.installation,
            event.cms,
            source.environment,
            source.plugin_version,
            source.site_id,
            source.sdk_language,
            source.cms_version,
            source.php_version,
        )
        now = self._now()
        log = otlp.event_log(
            plugin,
            event.event_type,
            event.severity,
            event.event_data,
            event.stack_trace,
            event_id=event.event_id,
            time=now if sent is None else round(sent.timestamp() * 1e9),
            observed=now,
        )
        self._forward(sinks, head, Signal.LOGS, log, 1)

    def _forward(
        self, sinks: Mapping[Signal, ReceiverSink], head: Head, signal: Signal, body: bytes, items: int
    ) -> None:
        batch = Batch(signal, body, items, head.origin(self._receiver), ((Receipt(items), items),))
        try:
            sinks[signal].consume(batch)
        except ConsumeError as error:
            self._lost[signal].add(items)
            if lost := self._limit.take(items):
                self._log.error("telemetry of plugins lost", items=lost, reason=str(error))

    def _now(self) -> int:
        return round(self._wall() * 1e9)
