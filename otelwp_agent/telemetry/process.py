"""Metrics of the process, in the form of the OpenTelemetry Collector's own endpoint.

With default settings, the Collector writes names without units and without `_total`, adds no labels to the series, and
exposes the attributes of the process once, in `target_info`. This module does the same.

Two of the Collector's instruments are missing here. `otelcol_process_runtime_heap_alloc_bytes` and
`otelcol_process_runtime_total_alloc_bytes` are bytes counted by Go's allocator. CPython counts only blocks
(`otelwp_python_allocated_blocks`), and a wrong number on a dashboard is worse than none.

Values from /proc exist only on Linux.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import resource
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import otelwp_agent
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.telemetry.metrics import Registry

SERVICE_NAME = "otelwp-agent"
"""Default `service.name` of the agent's own telemetry."""

UPTIME = Instrument("otelcol_process_uptime", "Seconds since the process started.")
CPU_SECONDS = Instrument("otelcol_process_cpu_seconds", "CPU time used, user and system, in seconds.")
MEMORY_RSS = Instrument(
    "otelcol_process_memory_rss", "Physical memory in use (resident set size), in bytes.", InstrumentKind.GAUGE
)
SYS_MEMORY = Instrument(
    "otelcol_process_runtime_total_sys_memory_bytes",
    "Memory obtained from the system for heap and stacks, in bytes, whether resident or not.",
    InstrumentKind.GAUGE,
)
OPEN_FDS = Instrument("otelwp_process_open_fds", "File descriptors open.", InstrumentKind.GAUGE)
MAX_FDS = Instrument("otelwp_process_max_fds", "File descriptors that may be open at once.", InstrumentKind.GAUGE)
ALLOCATED_BLOCKS = Instrument(
    "otelwp_python_allocated_blocks", "Memory blocks that the interpreter has allocated.", InstrumentKind.GAUGE
)
GC_COLLECTIONS = Instrument("otelwp_python_gc_collections", "Runs of the garbage collector.", labels=("generation",))
GC_COLLECTED = Instrument(
    "otelwp_python_gc_collected_objects", "Objects in cycles that the garbage collector freed.", labels=("generation",)
)
BUILD_INFO = Instrument(
    "otelwp_build_info", "Always 1; the labels are the versions.", InstrumentKind.GAUGE, ("python", "version")
)

INSTRUMENTS = (
    UPTIME,
    CPU_SECONDS,
    MEMORY_RSS,
    SYS_MEMORY,
    OPEN_FDS,
    MAX_FDS,
    ALLOCATED_BLOCKS,
    GC_COLLECTIONS,
    GC_COLLECTED,
    BUILD_INFO,
)
"""All instruments except `target_info`, whose labels depend on the configuration."""

_INSTANCE_ID = str(uuid.uuid4())

_PAGE = resource.getpagesize()
_STATM_RESIDENT, _STATM_DATA = 1, 5
"""Fields of /proc/self/statm, in pages: proc_pid_statm(5)."""


def observe(
    registry: Registry,
    attributes: Mapping[str, str] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    proc: Path = Path("/proc/self"),
) -> None:
    """Bind the instruments of the process; their values are read on request.

    `attributes` is `service.telemetry.resource`: it adds attributes to service.name, service.version and
    service.instance.id (a new UUID at each start) or replaces them; "" removes one. `clock` and `proc` are for tests.
    """
    started = clock()
    registry.counter(UPTIME, lambda: clock() - started)
    registry.counter(CPU_SECONDS, cpu_seconds)
    registry.gauge(ALLOCATED_BLOCKS, sys.getallocatedblocks)
    registry.gauge(MAX_FDS, lambda: float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    registry.gauge(BUILD_INFO, python=platform.python_version(), version=otelwp_agent.__version__).set(1)
    for generation in range(len(gc.get_stats())):
        label = str(generation)
        registry.counter(GC_COLLECTIONS, _gc_reader(generation, "collections"), generation=label)
        registry.counter(GC_COLLECTED, _gc_reader(generation, "collected"), generation=label)
    if (proc / "statm").exists():
        registry.gauge(MEMORY_RSS, lambda: resident_memory(proc))
        registry.gauge(SYS_MEMORY, lambda: _statm(proc, _STATM_DATA))
        registry.gauge(OPEN_FDS, lambda: len(os.listdir(proc / "fd")) - 1)  # noqa: PTH208 - minus 1 for the listing itself
    describe(registry, attributes or {})


def cpu_seconds() -> float:
    """Return the CPU time that this process has used, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_memory(proc: Path = Path("/proc/self")) -> int:
    """Return the resident set size in bytes. On systems other than Linux, raise `FileNotFoundError`."""
    return _statm(proc, _STATM_RESIDENT)


def _statm(proc: Path, field: int) -> int:
    return int((proc / "statm").read_bytes().split()[field]) * _PAGE


def _gc_reader(generation: int, what: str) -> Callable[[], float]:
    return lambda: float(gc.get_stats()[generation][what])


def describe(registry: Registry, attributes: Mapping[str, str]) -> None:
    """Expose the agent's attributes as labels of `target_info`, according to OpenTelemetry's rules for Prometheus.

    A second call, at a reload, keeps the instance id.
    """
    identity = {
        "service.instance.id": _INSTANCE_ID,
        "service.name": SERVICE_NAME,
        "service.version": otelwp_agent.__version__,
    }
    labels = {_label(key): value for key, value in {**identity, **attributes}.items() if value}
    registry.info("target_info", "Always 1; the labels are the attributes of this agent.", labels)


def _label(attribute: str) -> str:
    """Return an attribute name as a valid Prometheus label: letters, digits and `_`, not beginning with a digit."""
    name = re.sub(r"[^a-zA-Z0-9_]+", "_", attribute)
    return f"key_{name}" if name[:1].isdigit() else name
