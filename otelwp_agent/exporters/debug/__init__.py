"""Show telemetry as text for people: in the log, on the terminal or in a text file.

Use it alone while a pipeline is set up, or in addition to another exporter to see what that exporter gets. `verbosity`
sets the amount: `basic` a line of counts for each batch, `normal` a line for each span, data point or log record,
`detailed` everything. It is not meant for archives: the format may change, and with sampling not every batch is shown.

By default it writes to the agent's own log, as in the OpenTelemetry Collector: nothing is visible if
`service.telemetry.logs.level` is above `info`. With `use_internal_logger: false` it writes text to `output_paths`.

Example::

    exporters:
      debug:
        verbosity: detailed
      debug/terminal:
        verbosity: normal
        use_internal_logger: false
        output_paths: [stdout]
        sampling_initial: 5
        sampling_thereafter: 200
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import Field, model_validator

from otelwp_agent.component import (
    Context,
    Exporter,
    ExporterConfig,
    Factory,
    Kind,
    Reads,
    Stability,
    Tier,
)
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.exporters.debug.text import Verbosity, outline, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal

TICK = 1.0
"""Length of a sampling period, in seconds."""


class Config(ExporterConfig):
    """Settings of `debug`."""

    verbosity: Verbosity = "basic"
    """Amount of output: `basic`, `normal` or `detailed`."""
    sampling_initial: int = Field(2, ge=0)
    """Number of batches of a signal that are shown first in each second."""
    sampling_thereafter: int = Field(1, ge=0)
    """Interval at which later batches in that second are shown: 1 shows all, 10 every tenth, 0 none."""
    use_internal_logger: bool = True
    """Write to the agent's own log."""
    output_paths: list[str] | None = None
    """Outputs if `use_internal_logger` is false: `stdout`, `stderr` or files, to which text is appended. Default:
    stdout."""

    @model_validator(mode="after")
    def _paths_only_without_the_log(self) -> Config:
        if self.use_internal_logger and self.output_paths is not None:
            message = "output_paths has no effect if use_internal_logger is true: set that to false, or leave this out"
            raise ValueError(message)
        if self.output_paths == []:
            message = "output_paths is empty: name `stdout`, `stderr` or a file, or leave it out"
            raise ValueError(message)
        return self


class DebugExporter(Exporter):
    """Renders batches as text."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; files are opened by `start`."""
        super().__init__(context)
        self._verbosity = config.verbosity
        self._paths = None if config.use_internal_logger else (config.output_paths or ["stdout"])
        self._streams: list[tuple[str, TextIO]] = []
        self._sampler = Sampler(config.sampling_initial, config.sampling_thereafter, context.clock)

    async def start(self) -> None:
        """Open the files."""
        for path in self._paths or ():
            try:
                self._streams.append((path, _open(path)))
            except OSError as error:
                await self.shutdown()
                message = f"exporter {self.context.id}: cannot write to output_paths {path!r}: {error.strerror}"
                raise StartError(message) from error

    async def shutdown(self) -> None:
        """Close the files."""
        streams, self._streams = self._streams, []
        for path, stream in streams:
            if path not in ("stdout", "stderr"):
                stream.close()

    async def export(self, batch: Batch) -> int:
        """Show the batch, unless sampling skips it."""
        if not self._sampler.take(batch.signal):
            return 0
        text = "" if self._verbosity == "basic" else render(batch.signal, batch.body, self._verbosity)
        if self._paths is None:
            counts = outline(batch.signal, batch.body)
            self.context.log.info(batch.signal.value, **counts, **({"text": text} if text else {}))
        else:
            self._write(render(batch.signal, batch.body, "basic") + text)
        return 0

    def _write(self, text: str) -> None:
        for path, stream in self._streams:
            try:
                stream.write(text)
                stream.flush()
            except (OSError, ValueError) as error:
                message = f"cannot write to {path}: {getattr(error, 'strerror', None) or error}"
                raise RetryableError(message) from error


class Sampler:
    """Selects, in each second, the first `initial` batches of a signal, then every `thereafter`-th."""

    def __init__(self, initial: int, thereafter: int, clock: Callable[[], float]) -> None:
        """Start with no batches; `clock` returns monotonic seconds."""
        self._initial = initial
        self._thereafter = thereafter
        self._clock = clock
        self._seen: dict[Signal, tuple[float, int]] = {}

    def take(self, signal: Signal) -> bool:
        """Count a batch; return whether to show it."""
        now = self._clock()
        since, count = self._seen.get(signal, (now, 0))
        if now - since >= TICK:
            since, count = now, 0
        count += 1
        self._seen[signal] = since, count
        beyond = count - self._initial
        return beyond <= 0 or (self._thereafter > 0 and beyond % self._thereafter == 0)


def _open(path: str) -> TextIO:
    if path == "stdout":
        return sys.stdout
    if path == "stderr":
        return sys.stderr
    return Path(path).open("a", encoding="utf-8")


FACTORY = Factory(
    Kind.EXPORTER,
    "debug",
    Config,
    DebugExporter,
    stability=Stability.BETA,
    tier=Tier.FREE,
    counted=False,
    reads=Reads.FULL,
)
