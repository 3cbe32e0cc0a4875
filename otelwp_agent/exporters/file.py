"""Write telemetry to a file: one OTLP/JSON request per line, or length-prefixed protobuf.

The exporter is the end of a pipeline, to keep telemetry without a backend, or to give it to another program. A batch is
delivered when the operating system has accepted it; if writing fails (disk full, no permission), it is retried. Writing
is done in a separate thread, so that a slow disk delays nothing else.

Formats of the file, which the OpenTelemetry Collector's `otlp_json_file` receiver can read:

* `format: json`: each line is an export request in OTLP/JSON.
* `format: proto`, or any format with `compression`: each request follows its length in 4 bytes, big-endian.

With `rotation`, a file that would exceed `max_megabytes` is renamed to `name-2026-11-20T15-04-05.000.json`, and a new
file is started. Without it, the file is overwritten at each start, unless `append` is set.

Example::

    exporters:
      file:
        path: /var/lib/otelwp/traces.json
        create_directory: true
        rotation:
          max_megabytes: 100
          max_days: 7
          max_backups: 10
      file/archive:
        path: /var/lib/otelwp/archive.otlp
        format: proto
        compression: zstd
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

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
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Duration, Ignored, NullIsPresent, Refused
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.storage import files
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.transport.compression import compress

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal

BYTES = Instrument("otelwp_file_written_bytes", "Bytes written, after compression.", labels=("exporter",))
ROTATIONS = Instrument("otelwp_file_rotations", "Full files that were renamed.", labels=("exporter",))

MEGABYTE = 2**20
"""Bytes in the unit of `max_megabytes`."""
DAY = 86_400.0
"""Seconds per day."""
DEFAULT_FILE_MODE = "0600"
DEFAULT_DIRECTORY_MODE = "0700"

_LENGTH_BYTES = 4
_FLUSH = Ignored("every batch is written to the file before it counts as delivered")
_GROUP_BY = Refused(
    "one file per value of a resource attribute is not supported: use one file exporter per value, in separate "
    "pipelines, and remove `group_by`"
)
_ENCODING = Refused(
    "encoding extensions are not supported: set `format: json` or `format: proto`, and remove `encoding`"
)


class Rotation(blocks.Block):
    """When a file is full, and how long full files are kept."""

    max_megabytes: int = Field(100, ge=0)
    """Maximum size of a file in MiB. 0 means the default."""
    max_days: int = Field(0, ge=0)
    """Number of days for which full files are kept, by the time in their names. 0 keeps them for ever."""
    max_backups: int = Field(100, ge=0)
    """Maximum number of full files that are kept. 0 keeps all."""
    localtime: bool = False
    """Use local time in file names instead of UTC."""


class Config(ExporterConfig):
    """Settings of the file exporter."""

    path: str = Field(min_length=1)
    """The file. A relative path is relative to the working directory."""
    append: bool = False
    """Append to the file instead of overwriting it at the start. With `rotation`, the exporter always appends."""
    rotation: Annotated[Rotation | None, NullIsPresent] = None
    """Start a new file when one is full. Without it, one file grows without limit."""
    format: Literal["json", "proto"] = "json"
    """OTLP/JSON or OTLP/protobuf."""
    compression: Literal["", "none", "zstd"] = "none"
    """Compress each request separately."""
    flush_interval: Annotated[Duration, Field(ge=0), _FLUSH] = 1.0
    """Accepted for compatibility with the Collector, without effect: every batch is written before it counts as
    delivered.
    """
    create_directory: bool = False
    """Create the directory of `path` at the start if it does not exist."""
    directory_permissions: str | None = None
    """Mode of created directories, octal; the umask is subtracted. Default: 0700."""
    file_permissions: str = DEFAULT_FILE_MODE
    """Mode of created files, octal; the umask is subtracted. An existing file keeps its mode."""
    group_by: Annotated[None, _GROUP_BY] = None
    """Refused: one exporter writes one file."""
    encoding: Annotated[None, _ENCODING] = None
    """Refused: encoding extensions are not supported."""

    @field_validator("directory_permissions", "file_permissions")
    @classmethod
    def _octal(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(0o?)?[0-7]{3}", value):
            message = f'{value!r} is not a file mode: write a 0 and three octal digits, like "0755", in quotes'
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _settings_agree(self) -> Config:
        problem = ""
        if self.append and self.rotation is not None:
            problem = "append and rotation: with `rotation` the exporter always appends; remove `append`"
        elif self.append and self.compression == "zstd":
            problem = "append and compression exclude each other, as in the OpenTelemetry Collector; use `rotation`"
        elif self.directory_permissions is not None and not self.create_directory:
            problem = "directory_permissions has no effect without `create_directory: true`"
        if problem:
            raise ValueError(problem)
        return self


class FileExporter(Exporter):
    """Writes batches in a thread, in the order of their arrival."""

    def __init__(self, config: Config, context: Context) -> None:
        """Keep the settings; `start` opens the file."""
        super().__init__(context)
        self._encode = _encoder(config)
        self._directory_mode = config.directory_permissions or DEFAULT_DIRECTORY_MODE if config.create_directory else ""
        self._keep = config.append or config.rotation is not None
        self._file = RotatingFile(Path(config.path), config.rotation, mode=int(config.file_permissions, 8))
        self._thread: ThreadPoolExecutor | None = None
        self._bytes = context.registry.counter(BYTES, exporter=str(context.id))
        self._rotations = context.registry.counter(ROTATIONS, exporter=str(context.id))

    async def start(self) -> None:
        """Create the directory if `create_directory` is set, and open the file."""
        path = self._file.path
        try:
            if self._directory_mode:
                files.make_directory(path.parent, int(self._directory_mode, 8))
            self._file.open(truncate=not self._keep)
        except OSError as error:
            advice = ""
            if not path.parent.is_dir():
                advice = "; create its directory, or set `create_directory: true`"
            message = f"exporter {self.context.id}: cannot write to path {str(path)!r}: {error.strerror}{advice}"
            raise StartError(message) from error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file {self.context.id}")

    async def shutdown(self) -> None:
        """Close the file after the batches that are being written."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            thread.shutdown()  # returns at once: closing was its last task

    async def export(self, batch: Batch) -> int:
        """Write the batch; return when the operating system has accepted it."""
        if self._thread is None:
            raise RetryableError(f"{self._file.path} is not open")
        loop = asyncio.get_running_loop()
        written, rotated = await loop.run_in_executor(self._thread, self._store, batch.signal, batch.body)
        self._bytes.add(written)
        self._rotations.add(rotated)
        return 0

    def _store(self, signal: Signal, body: bytes) -> tuple[int, int]:
        """Encode and write a batch, in the thread; return the bytes written and the number of rotations."""
        record = self._encode(signal, body)
        try:
            return len(record), self._file.write(record)
        except OSError as error:
            raise RetryableError(f"cannot write to {self._file.path}: {error.strerror}") from error


class RotatingFile:
    """A file to which records are appended, each completely or not at all. Use it from one thread at a time.

    `wall` returns seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        rotation: Rotation | None = None,
        wall: Callable[[], float] = time.time,
        mode: int = files.FILE_MODE,
    ) -> None:
        """Keep the settings; `open` opens the file."""
        self.path = path
        self._mode = mode
        self._rotation = rotation
        self._limit = (rotation.max_megabytes or 100) * MEGABYTE if rotation is not None else 0
        self._wall = wall
        self._fd = -1
        self._size = 0

    def open(self, *, truncate: bool) -> None:
        """Open the file, and remove full files that are too old or too many."""
        self._open(os.O_TRUNC if truncate else 0)
        self._prune()

    def close(self) -> None:
        """Close the file, if it is open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            files.close(fd)

    def write(self, record: bytes) -> int:
        """Append `record`; return 1 if the file was full and a new one was started, else 0.

        Raises `OSError`; then no part of the record is in the file.
        """
        if self._fd < 0:  # a rotation failed before it was complete
            self._open(0)
        rotate = bool(self._limit and self._size and self._size + len(record) > self._limit)
        if rotate:
            self._rotate()
        try:
            files.write_all(self._fd, record)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(record)
        return int(rotate)

    def backups(self) -> list[tuple[float, Path]]:
        """Return the full files, newest first, with the times in their names (seconds since 1970)."""
        pattern = re.compile(
            re.escape(self.path.stem) + r"-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})" + re.escape(self.path.suffix)
        )
        zone = None if self._rotation is not None and self._rotation.localtime else UTC
        found: list[tuple[float, Path]] = []
        for path in self.path.parent.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                with contextlib.suppress(ValueError):
                    at = datetime.strptime(match[1], "%Y-%m-%dT%H-%M-%S.%f")  # noqa: DTZ007 - the zone follows
                    found.append((at.replace(tzinfo=zone).timestamp(), path))
        return sorted(found, reverse=True)

    def _open(self, flags: int) -> None:
        self._fd = files.open_file(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, self._mode)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """Rename the file and start a new one."""
        at = self._wall()
        while (backup := self._backup(at)).exists():
            at += 0.001
        self.path.rename(backup)
        self.close()
        self._open(0)
        self._prune()

    def _backup(self, at: float) -> Path:
        local = self._rotation is not None and self._rotation.localtime
        moment = datetime.fromtimestamp(at, tz=None if local else UTC)
        stamp = f"{moment:%Y-%m-%dT%H-%M-%S}.{moment.microsecond // 1000:03}"
        return self.path.with_name(f"{self.path.stem}-{stamp}{self.path.suffix}")

    def _prune(self) -> None:
        """Remove full files that are too old or too many. A file that cannot be removed is tried again next time."""
        rotation = self._rotation
        if rotation is None or not (rotation.max_backups or rotation.max_days):
            return
        try:
            backups = self.backups()
        except OSError:
            return
        oldest = self._wall() - rotation.max_days * DAY if rotation.max_days else float("-inf")
        for number, (at, path) in enumerate(backups, start=1):
            if at < oldest or (rotation.max_backups and number > rotation.max_backups):
                with contextlib.suppress(OSError):
                    path.unlink()


def _encoder(config: Config) -> Callable[[Signal, bytes], bytes]:
    """Return a function that converts a serialized request to a record of the file."""
    zstd = config.compression == "zstd"

    def as_json(signal: Signal, body: bytes) -> bytes:
        from otelwp_agent.codecs import otlp_json  # noqa: PLC0415 - its tables are needed only for JSON

        return otlp_json.encode(signal, body)

    def line(signal: Signal, body: bytes) -> bytes:
        return as_json(signal, body) + b"\n"

    def message(signal: Signal, body: bytes) -> bytes:
        data = body if config.format == "proto" else as_json(signal, body)
        data = compress("zstd", data) if zstd else data
        return len(data).to_bytes(_LENGTH_BYTES, "big") + data

    return line if config.format == "json" and not zstd else message


FACTORY = Factory(
    Kind.EXPORTER,
    "file",
    Config,
    FileExporter,
    stability=Stability.BETA,
    tier=Tier.FREE,
    counted=False,
    reads=Reads.FULL,
    instruments=(BYTES, ROTATIONS),
)
