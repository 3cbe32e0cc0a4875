"""Collectors to compare, each started with an OTLP receiver and an exporter for OTLP over HTTP.

Rotel sends with gzip, and its option `--otlp-exporter-compression=none` has no effect (0.0.1a15). So the agent is
measured twice: without compression, and with gzip like Rotel.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import rotel_binary
from process import Process, free_ports
from results import OTELCOL, OURS, OURS_GZIP, PEER, PEER_UNSENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from process import Cores

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class Running:
    """A running collector."""

    process: Process
    http_port: int
    grpc_port: int | None
    listening_seconds: float
    """Time from exec until every port accepted connections."""
    metrics_port: int | None = None
    """Port of its own metrics, if known."""

    def port(self, protocol: str) -> int:
        """Return the port for a protocol."""
        port = self.http_port if protocol == "http" else self.grpc_port
        assert port is not None
        return port


class Collector(Protocol):
    """A collector that can be measured."""

    name: str
    version: str
    sends: bool
    """Whether it forwards accepted spans to the sink."""

    def start(self, sink: str, logs: Path, cores: Cores, *, grpc: bool = True) -> Running:
        """Start it with the base URL `sink` as destination; return when it listens."""


class Otelwp:
    """Our agent."""

    sends = True

    def __init__(
        self,
        compression: str,
        *,
        name: str = "",
        configs: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        bin_folder: Path = Path(sys.executable).parent,
    ) -> None:
        """Use the command in `bin_folder`, with `compression` (none or gzip) for its exporter.

        `configs` are additional files in `configs/`, merged last; `env` are environment variables for them.
        """
        self.name = name or (OURS if compression == "none" else OURS_GZIP)
        self.compression = compression
        self.configs = [CONFIGS / config for config in configs]
        self.env = dict(env or {})
        self.command = str(bin_folder / "otelwp-agent")
        self.version = version("otelwp-agent")

    def start(self, sink: str, logs: Path, cores: Cores, *, grpc: bool = True) -> Running:
        """Start it with `configs/bench.yaml`."""
        http_port, grpc_port, metrics_port = free_ports(3)
        configs = [CONFIGS / "bench.yaml", *([CONFIGS / "bench_grpc.yaml"] if grpc else []), *self.configs]
        env = (
            os.environ
            | self.env
            | {
                "BENCH_SINK": sink,
                "BENCH_COMPRESSION": self.compression,
                "BENCH_HTTP_PORT": str(http_port),
                "BENCH_GRPC_PORT": str(grpc_port),
                "BENCH_METRICS_PORT": str(metrics_port),
            }
        )
        command = [self.command, "run", *[word for config in configs for word in ("--config", str(config))]]
        process = Process(command, env, logs / f"{self.name}.log", cores)
        return _started(process, http_port, grpc_port if grpc else None, metrics_port)


class Otelcol:
    """The OpenTelemetry Collector, as built by tools/peers."""

    sends = True

    def __init__(self, binary: Path, version: str, config: str, env: Mapping[str, str] | None = None) -> None:
        """Use `binary` with the file `config` in `configs/`; `env` are environment variables for it."""
        self.name = OTELCOL
        self.binary = binary
        self.version = version
        self.config = CONFIGS / config
        self.env = dict(env or {})

    def start(self, sink: str, logs: Path, cores: Cores, *, grpc: bool = True) -> Running:
        """Start it with its configuration, which must listen for gRPC if `grpc` is set."""
        http_port, grpc_port, metrics_port = free_ports(3)
        env = (
            os.environ
            | self.env
            | {
                "BENCH_SINK": sink,
                "BENCH_HTTP_PORT": str(http_port),
                "BENCH_GRPC_PORT": str(grpc_port),
                "BENCH_METRICS_PORT": str(metrics_port),
            }
        )
        command = [str(self.binary), f"--config=file:{self.config}"]
        process = Process(command, env, logs / "otelcol.log", cores)
        return _started(process, http_port, grpc_port if grpc else None, metrics_port)


class Rotel:
    """Rotel, the fastest open-source collector, with its default settings."""

    def __init__(self, exporter: str = "otlp") -> None:
        """Get the binary; raise `rotel_binary.NotAvailableError` if it is not available."""
        self.name = PEER if exporter == "otlp" else PEER_UNSENT
        self.sends = exporter == "otlp"
        self.exporter = exporter
        self.binary, self.version = rotel_binary.get()

    def start(self, sink: str, logs: Path, cores: Cores, *, grpc: bool = True) -> Running:
        """Start it; it always listens for gRPC too."""
        del grpc
        http_port, grpc_port = free_ports(2)
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{http_port}",
            "otlp-grpc-endpoint": f"127.0.0.1:{grpc_port}",
            "exporter": self.exporter,
            "pid-file": str(logs / "rotel.pid"),
            "log-file": str(logs / "rotel.log"),
        }
        if self.sends:
            options |= {"otlp-exporter-protocol": "http", "otlp-exporter-endpoint": sink}
        command = [str(self.binary), "start", *[f"--{name}={value}" for name, value in options.items()]]
        return _started(Process(command, os.environ, logs / "rotel-output.log", cores), http_port, grpc_port)


def _started(process: Process, http_port: int, grpc_port: int | None, metrics_port: int | None = None) -> Running:
    ports = [http_port, *([grpc_port] if grpc_port else [])]
    try:
        return Running(process, http_port, grpc_port, process.wait_listening(ports), metrics_port)
    except BaseException:
        process.kill()
        raise
