"""Send OTLP over gRPC to another collector, Jaeger or any other backend that accepts it. Also known as `otlp`.

Batches are sent unchanged; batches above `max_request_size` are split. Failures that may pass are retried
(`retry_on_failure`); the queue of the exporter limits its memory.

Example::

    exporters:
      otlp_grpc:
        endpoint: collector.example:4317
        headers:
          x-tenant: shop
        compression: gzip
        retry_on_failure:
          max_elapsed_time: 10m
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import Context, Exporter, ExporterConfig, Factory, Kind, Stability, Tier
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport.otlp_grpc_settings import OtlpGrpcSettings

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.grpc_client import GrpcClient

METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

_EXCERPT = 200
"""Number of characters of a backend's message that are logged."""


class Config(ExporterConfig, OtlpGrpcSettings):
    """Settings of the OTLP/gRPC exporter."""


class OtlpGrpcExporter(Exporter):
    """Calls `Export` of the OTLP service of each batch's signal."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        self.max_request_bytes = config.max_request_size
        self._config = config
        self._authenticator = context.client_authenticator(config.auth)
        self.headers = self._authenticator.reads if self._authenticator is not None else ()
        self._client: GrpcClient | None = None
        self._warned = ""

    async def start(self) -> None:
        """Read the certificates and open the channel; the first export connects."""
        from otelwp_agent.transport.grpc_client import GrpcClient  # noqa: PLC0415 - loads grpcio, 13 MB

        name = f"{self.context.kind.value}/{self.context.id}"
        client = GrpcClient(self._config, name=name, log=self.context.log, authenticator=self._authenticator)
        await client.start()
        self._client = client

    async def shutdown(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def export(self, batch: Batch) -> int:
        """Send the batch; return how many of its items the backend rejected."""
        if self._client is None:
            raise RuntimeError("the exporter is not started")
        response = await self._client.call(METHODS[batch.signal], batch.body, batch.origin)
        if not response:
            return 0
        items, message = rejected(response)
        if message and message != self._warned:  # log a repeated message only once
            self._warned = message
            self.context.log.warning("partial success", rejected=items, message=message[:_EXCERPT])
        return min(items, batch.items)


def _build(config: Config, context: Context) -> OtlpGrpcExporter:
    return OtlpGrpcExporter(config, context)


FACTORY = Factory(
    Kind.EXPORTER,
    "otlp_grpc",
    Config,
    _build,
    aliases=("otlp",),
    stability=Stability.BETA,
    tier=Tier.PRO,
)
