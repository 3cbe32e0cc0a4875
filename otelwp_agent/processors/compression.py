"""Compress the bodies of batches.

Place it after `batch`, because large bodies compress better, and before `encryption`, because encrypted bodies do not
compress. Only an exporter that sends encoded bodies as they are may follow, such as `managed`; other exporters have a
setting `compression` of their own. A body that would grow, or is smaller than `min_size`, stays as it is.

Level 1 of zstd is the default: on traces of WordPress, higher levels and long windows take many times the CPU and save
a few percent. docs/adr/0012-no-dictionary.md has the measurements, also of trained dictionaries.

Example::

    receivers: {otlp: {protocols: {http: }}}
    processors:
      batch:
      compression:
        encoding: zstd
        level: 1
    exporters:
      managed: {endpoint: https://eu.collector.example, api_key: "${env:WPOTEL_API_KEY:-none}"}
    service:
      pipelines:
        traces: {receivers: [otlp], processors: [batch, compression], exporters: [managed]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from otelwp_agent.component import Carries, ComponentConfig, Context, Factory, Kind, Stability, Tier
from otelwp_agent.component.encoding import EncodingProcessor
from otelwp_agent.config.types import ByteSize  # noqa: TC001 - pydantic reads it
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.transport.compression import compress

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch

INPUT = Instrument(
    "otelwp_processor_compression_input_bytes", "Bytes of the bodies before compression.", labels=("processor",)
)
OUTPUT = Instrument(
    "otelwp_processor_compression_output_bytes",
    "Bytes of the bodies after compression; a body that would grow counts with its own size.",
    labels=("processor",),
)
SECONDS = Instrument(
    "otelwp_processor_compression_cpu_seconds", "CPU time that compression has taken.", labels=("processor",)
)
RATIO = Instrument(
    "otelwp_processor_compression_ratio",
    "Bytes before compression for each byte after it, as a moving average over batches.",
    InstrumentKind.GAUGE,
    ("processor",),
)
SKIPPED = Instrument(
    "otelwp_processor_compression_skipped_batches",
    "Batches forwarded without compression, because they are small or would grow.",
    labels=("processor",),
)

_HIGHEST = {"zstd": 22, "gzip": 9}
_WEIGHT = 0.05
"""Weight of the last batch in the ratio."""


class Config(ComponentConfig):
    """How to compress."""

    encoding: Literal["zstd", "gzip"] = "zstd"
    """The compression. zstd needs less CPU and gives smaller bodies; use gzip for a receiver without zstd."""
    level: int = Field(1, ge=1)
    """Compression level: 1 to 22 for zstd, 1 to 9 for gzip (above 3 many times slower). Higher levels give smaller
    bodies and take more CPU."""
    long_window: bool = False
    """zstd only: find repetitions over the whole body, however large it is. It takes many times the CPU, and saves
    bytes only if bodies of several MiB repeat long parts."""
    min_size: ByteSize = 256
    """Smaller bodies are not compressed."""

    @model_validator(mode="after")
    def _fits_the_encoding(self) -> Config:
        highest = _HIGHEST[self.encoding]
        if self.level > highest:
            message = f"the highest `level` of {self.encoding} is {highest}"
            raise ValueError(message)
        if self.long_window and self.encoding != "zstd":
            message = "`long_window` is for zstd only: remove it, or set `encoding: zstd`"
            raise ValueError(message)
        return self


class CompressionProcessor(EncodingProcessor):
    """Compresses bodies; see `EncodingProcessor` for where and when."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments."""
        super().__init__(context)
        self._encoding = config.encoding
        self._level = config.level
        self._long_window = config.long_window
        self._min_size = config.min_size
        name, registry = str(context.id), context.registry
        self._input = registry.counter(INPUT, processor=name)
        self._output = registry.counter(OUTPUT, processor=name)
        self._seconds = registry.counter(SECONDS, processor=name)
        self._ratio = registry.gauge(RATIO, processor=name)
        self._skipped = registry.counter(SKIPPED, processor=name)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch compressed; as it is if its body is small or would grow."""
        body = batch.body
        if len(body) < self._min_size:
            return batch
        compressed = compress(self._encoding, body, self._level, long_window=self._long_window)
        return batch.encoded(self._encoding, compressed) if len(compressed) < len(body) else batch

    def encoded(self, before: Batch, after: Batch, seconds: float) -> None:
        """Count the bytes and the time."""
        if after is before:
            self._skipped.add()
        size, compressed = len(before.body), len(after.body)
        self._input.add(size)
        self._output.add(compressed)
        self._seconds.add(seconds)
        if compressed:
            ratio, average = size / compressed, self._ratio.value
            self._ratio.set(average + _WEIGHT * (ratio - average) if average else ratio)


FACTORY = Factory(
    Kind.PROCESSOR,
    "compression",
    Config,
    CompressionProcessor,
    stability=Stability.BETA,
    tier=Tier.PRO,
    encodes=Carries.COMPRESSED,
    instruments=(INPUT, OUTPUT, SECONDS, RATIO, SKIPPED),
)
