"""Refuse requests while the process uses too much memory, so that senders retry later and the process is not killed.

Place it first in every pipeline. Receivers call it before they decode a body. The limit is for the resident memory
(RSS) of the whole process, including the 40 MiB of the interpreter itself.

Memory is measured every `check_interval`, and earlier if the requests since the last measurement have more bytes than
were free: fast traffic cannot exceed the limit between two measurements. Above the soft limit (`limit_mib` minus
`spike_limit_mib`), requests are refused, garbage is collected and free memory is returned to the system; above the hard
limit, memory is returned more often.

The bodies of requests that are still being received count too, over all receivers of the process. Of the memory between
the usage at the start and the soft limit, these bodies may use a quarter before receivers read more slowly, and half
before they refuse the largest and slowest requests. So the process stays below `limit_mib` plus 64 MiB.

Example::

    processors:
      memory_limiter:
        check_interval: 1s
        limit_mib: 400
        spike_limit_mib: 80
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from otelwp_agent.component import (
    Carries,
    ComponentConfig,
    ComponentHealth,
    Context,
    Factory,
    Kind,
    Processor,
    Stability,
)
from otelwp_agent.config.types import Duration  # noqa: TC001 - pydantic reads it
from otelwp_agent.errors import Overloaded, RetryableError, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch

ACCEPTED = {
    signal: Instrument(
        f"otelcol_processor_memory_limiter_accepted_{signal.items}",
        f"Number of {signal.items.replace('_', ' ')} that the next stage accepted.",
        labels=("processor",),
    )
    for signal in Signal
}
REFUSED = {
    signal: Instrument(
        f"otelcol_processor_memory_limiter_refused_{signal.items}",
        f"Number of {signal.items.replace('_', ' ')} that were refused because of memory.",
        labels=("processor",),
    )
    for signal in Signal
}
REFUSED_UNREAD = Instrument(
    "otelwp_processor_memory_limiter_refused_requests",
    "Requests that were refused because of memory before they were decoded.",
    labels=("processor",),
)
LIMIT = Instrument(
    "otelwp_processor_memory_limiter_soft_limit_bytes",
    "Resident memory above which requests are refused.",
    InstrumentKind.GAUGE,
    ("processor",),
)

_MIB = 2**20
_DEFAULT_INTERVAL = 1.0
_SHORTEST_INTERVAL = 0.1
_SMALLEST_STEP = 256 * 1024
"""Least number of bytes between two measurements: a measurement costs about 2 microseconds."""
_EFFECTIVE = 0.95
"""A collection is without effect if more than this part of the memory stays in use."""
_SOFT_SHARE, _HARD_SHARE = 4, 2
"""Divisors of the free memory: bodies may use a quarter before receivers read more slowly, and half before they refuse
requests. Joining and decoding a body needs its bytes once more."""
_LEAST_SOFT, _LEAST_HARD = 12 * _MIB, 32 * _MIB
"""Lowest limits for bodies in bytes: one body of 20 MiB, the default limit of the receivers, must be possible."""
_PAGE = resource.getpagesize()
_RETRY_AFTER = 1.0
"""Seconds after which a refused sender should retry."""


class Config(ComponentConfig):
    """How much memory the process may use."""

    check_interval: Duration = Field(_DEFAULT_INTERVAL, ge=0)
    """Time between two measurements, at least 100ms. 0 means 1s."""
    limit_mib: int = Field(0, ge=0)
    """The hard limit: MiB of resident memory that the process should not exceed."""
    spike_limit_mib: int = Field(0, ge=0)
    """Distance between the soft and the hard limit in MiB. Above the soft limit, requests are refused. 0 means 20 % of
    the hard limit."""
    limit_percentage: int = Field(0, ge=0, le=100)
    """The hard limit in percent of the memory limit of the control group (container) or, without one, of the machine's
    memory. If `limit_mib` is set, it is used instead."""
    spike_limit_percentage: int = Field(0, ge=0, le=100)
    """With `limit_percentage`: distance between the soft and the hard limit, in percent of the same memory. 0 means
    20 % of the hard limit."""
    min_gc_interval_when_soft_limited: Duration = Field(10.0, ge=0)
    """Shortest time between two garbage collections above the soft limit."""
    min_gc_interval_when_hard_limited: Duration = Field(0.0, ge=0)
    """Shortest time between two garbage collections above the hard limit."""
    max_gc_interval_when_soft_limited: Duration = Field(30.0, ge=0)
    """Longest time between two garbage collections above the soft limit: each collection without effect doubles the
    time up to this. 0 never increases the time."""
    max_gc_interval_when_hard_limited: Duration = Field(30.0, ge=0)
    """The same above the hard limit."""

    @model_validator(mode="after")
    def _limits_agree(self) -> Config:
        for problem, wrong in (
            ("give `limit_mib` or `limit_percentage`, above 0", not self.limit_mib and not self.limit_percentage),
            ("`spike_limit_mib` must be below `limit_mib`", 0 < self.limit_mib <= self.spike_limit_mib),
            (
                "`spike_limit_percentage` must be below `limit_percentage`",
                0 < self.limit_percentage <= self.spike_limit_percentage,
            ),
        ):
            if wrong:
                raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _intervals_agree(self) -> Config:
        soft, hard = self.min_gc_interval_when_soft_limited, self.min_gc_interval_when_hard_limited
        soft_max, hard_max = self.max_gc_interval_when_soft_limited, self.max_gc_interval_when_hard_limited
        for smaller, greater, wrong in (
            ("min_gc_interval_when_soft_limited", "min_gc_interval_when_hard_limited", soft < hard),
            ("max_gc_interval_when_soft_limited", "min_gc_interval_when_soft_limited", 0 < soft_max < soft),
            ("max_gc_interval_when_hard_limited", "min_gc_interval_when_hard_limited", 0 < hard_max < hard),
            ("max_gc_interval_when_soft_limited", "max_gc_interval_when_hard_limited", 0 < soft_max < hard_max),
        ):
            if wrong:
                message = f"`{smaller}` must not be below `{greater}`"
                raise ValueError(message)
        return self


class MemoryLimiter(Processor):
    """Measures the process's memory and refuses requests while it is above the soft limit."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments. Measuring begins in `start`."""
        super().__init__(context)
        self._config = config
        self._interval = max(_SHORTEST_INTERVAL, config.check_interval or _DEFAULT_INTERVAL)
        self._hard = self._soft = 0
        self._refusing = False
        self._bytes_left = 0
        """Bytes that may be forwarded before memory is measured again."""
        self._memory: ResidentMemory | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._collector = Collector(config, self._interval, context.clock)
        name = str(context.id)
        registry = context.registry
        self._accepted = {signal: registry.counter(ACCEPTED[signal], processor=name) for signal in Signal}
        self._refused = {signal: registry.counter(REFUSED[signal], processor=name) for signal in Signal}
        self._refused_unread = registry.counter(REFUSED_UNREAD, processor=name)
        self._limit = registry.gauge(LIMIT, processor=name)

    async def start(self) -> None:
        """Determine the limits and begin to measure; raise `StartError` if the memory size is unknown."""
        self._hard, self._soft = self._limits()
        self._limit.set(self._soft)
        self._memory = ResidentMemory()
        free = self._soft - self._memory.read()
        self.context.in_flight.limit(self, max(free // _SOFT_SHARE, _LEAST_SOFT), max(free // _HARD_SHARE, _LEAST_HARD))
        self._tick()
        if self._refusing:
            self.context.log.warning(
                "memory limit is below what the process uses when idle",
                limit_mib=self._hard // _MIB,
                soft_limit_mib=self._soft // _MIB,
                memory_mib=self._memory.read() // _MIB,
            )

    async def shutdown(self) -> None:
        """Stop measuring and limiting."""
        self.context.in_flight.unlimit(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._refusing = False
        self._bytes_left = sys.maxsize

    def consume(self, batch: Batch) -> None:
        """Forward the batch, or raise `Overloaded`."""
        self._bytes_left -= len(batch.body)
        if self._bytes_left < 0:
            self._check()
        if self._refusing and not batch.admitted:
            self._refused[batch.signal].value += batch.items
            raise _overloaded()
        self.next.consume(batch)
        self._accepted[batch.signal].value += batch.items

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return the error if `consume` would refuse the batch now, else `None`."""
        return _overloaded() if self._refusing else self.next.refusal(batch)

    def admit(self) -> None:
        """Raise `Overloaded` while memory is above the soft limit."""
        if self._refusing:
            self._refused_unread.value += 1
            raise _overloaded()

    def health(self) -> ComponentHealth:
        """Report whether requests are being refused."""
        message = "memory is above the soft limit: requests are refused" if self._refusing else ""
        return ComponentHealth(self.context.kind, str(self.context.id), not self._refusing, message)

    def _limits(self) -> tuple[int, int]:
        """Return the hard and the soft limit in bytes."""
        config = self._config
        if config.limit_mib:
            hard, spike = config.limit_mib * _MIB, config.spike_limit_mib * _MIB
        else:
            total = total_memory()
            if total is None:
                message = f"{self.context.id}: the size of the memory cannot be determined: set `limit_mib`"
                raise StartError(message)
            hard, spike = total * config.limit_percentage // 100, total * config.spike_limit_percentage // 100
        return hard, hard - (spike or hard // 5)

    def _tick(self) -> None:
        self._check()
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def _check(self) -> None:
        """Measure memory, return free memory to the system if the interval allows it, and decide whether to refuse."""
        if self._memory is None:
            self._bytes_left = sys.maxsize
            return
        used = self._memory.read()
        if used > self._soft:
            _trim_heap()  # freed memory counts until it is returned; this takes 1 ms, less than a collection
            used = self._memory.read()
        if used > self._soft and self._collector.is_time(above_hard=used > self._hard):
            before, used = used, self._collector.collect(self._memory)
            self.context.log.info("memory returned to the system", before_mib=before // _MIB, after_mib=used // _MIB)
        in_flight = self.context.in_flight.used
        # Bytes in flight are counted again: joining and decoding them will need the same amount once more.
        refusing = used + in_flight > self._soft
        if refusing != self._refusing:
            self._refusing = refusing
            fields = {
                "memory_mib": used // _MIB,
                "in_flight_mib": in_flight // _MIB,
                "soft_limit_mib": self._soft // _MIB,
            }
            if refusing:
                self.context.log.warning("memory is above the soft limit: requests are refused", **fields)
            else:
                self.context.log.info("memory is below the soft limit again", **fields)
        if not refusing:
            self._collector.relax()
        self._bytes_left = max(self._soft - used - in_flight, _SMALLEST_STEP)


class Collector:
    """Collects garbage and returns free memory to the system, less often while this has no effect."""

    def __init__(self, config: Config, interval: float, clock: Callable[[], float]) -> None:
        """Store the shortest and longest intervals of `config`; memory is measured every `interval` seconds."""
        self._shortest = (config.min_gc_interval_when_soft_limited, config.min_gc_interval_when_hard_limited)
        self._longest = (config.max_gc_interval_when_soft_limited, config.max_gc_interval_when_hard_limited)
        self._least = interval
        self._clock = clock
        self._waits = list(self._shortest)
        self._last = -float("inf")

    def is_time(self, *, above_hard: bool) -> bool:
        """Return whether the interval since the last collection has passed."""
        return self._clock() - self._last >= self._waits[above_hard]

    def collect(self, memory: ResidentMemory) -> int:
        """Collect garbage and return free memory to the system; return the bytes in use after that."""
        before = memory.read()
        gc.collect()
        _trim_heap()
        used = memory.read()
        self._last = self._clock()
        if used > before * _EFFECTIVE:
            self._waits = [
                min(max(wait, self._least) * 2, max(longest, shortest)) if longest else shortest
                for wait, shortest, longest in zip(self._waits, self._shortest, self._longest, strict=True)
            ]
        else:
            self.relax()
        return used

    def relax(self) -> None:
        """Reset the intervals to the shortest."""
        self._waits = list(self._shortest)


class ResidentMemory:
    """Reads the process's resident memory: on Linux from a file that stays open, elsewhere only the peak."""

    def __init__(self, path: str = "/proc/self/statm") -> None:
        """Open the file with the memory usage."""
        self._file = -1
        with suppress(OSError):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        """Return the resident memory in bytes."""
        if self._file < 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024
        return int(os.pread(self._file, 128, 0).split(b" ", 2)[1]) * _PAGE

    def close(self) -> None:
        """Close the file; after that `read` returns the peak."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def total_memory(root: Path = Path("/")) -> int | None:
    """Return the memory limit of this process in bytes, or `None` if it is unknown.

    That is the smallest of the limits of its control groups (version 2 or 1) and the machine's memory. `root` is the
    root directory.
    """
    limits = [*_group_limits(root)]
    with suppress(OSError, ValueError, IndexError):
        text = (root / "proc/meminfo").read_text()
        limits.append(int(text.partition("MemTotal:")[2].split()[0]) * 1024)
    return min(limits, default=None)


def _group_limits(root: Path) -> list[int]:
    """Return the memory limits of the process's control group and its parents, as far as a container shows them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
            if folder == base:
                break
    return limits


def _trim_heap() -> None:
    """Let the C library return free memory to the system, if it supports that (glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _overloaded() -> Overloaded:
    return Overloaded("memory is above the soft limit", retry_after=_RETRY_AFTER, reason="memory")


FACTORY = Factory(
    Kind.PROCESSOR,
    "memory_limiter",
    Config,
    MemoryLimiter,
    stability=Stability.STABLE,
    accepts=Carries.ENCODED,
    instruments=(*ACCEPTED.values(), *REFUSED.values(), REFUSED_UNREAD, LIMIT),
)
