"""Feed any bytes to the decoders of the receivers: CPU and memory must stay within a budget for each byte received.

The first byte of an input selects the decoder. The rest is used as a body, and as the seed of an expensive body
(cost_bodies.py), because randomly changed bodies are mostly invalid. CPU is the CPU time of the process. Memory is the
peak of the resident set, which Linux resets and reports per process; this includes the memory of C libraries, which
tracemalloc does not see, and needs only microseconds. If a budget is exceeded, the body is measured twice more, because
other processes disturb a measurement.

`python benchmarks/fuzz/fuzz_cost.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import cost_bodies as bodies  # noqa: E402 - beside this file
from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.codecs.jaeger import from_json as jaeger_json  # noqa: E402
from otelwp_agent.codecs.jaeger import from_proto as jaeger_proto  # noqa: E402
from otelwp_agent.codecs.jaeger import from_thrift  # noqa: E402
from otelwp_agent.codecs.jaeger.http import THRIFT_OFF_LOOP  # noqa: E402
from otelwp_agent.codecs.otlp_json import decode  # noqa: E402
from otelwp_agent.codecs.zipkin import from_json, from_proto, from_v1  # noqa: E402
from otelwp_agent.errors import ConsumeError  # noqa: E402
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS, checker  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from otelwp_agent.model.stepwise_checking import StepwiseChecker  # noqa: E402
from otelwp_agent.receivers.jaeger import OFF_LOOP as MESSAGE_OFF_LOOP  # noqa: E402
from otelwp_agent.transport.compression import FREE_OUTPUT, MAX_RATIO, decompress  # noqa: E402
from otelwp_agent.transport.decoding import OFF_LOOP, is_long_json  # noqa: E402

if TYPE_CHECKING:
    from types import ModuleType

    Reader = Callable[[bytes], object]

SECONDS_PER_BYTE, SMALL_SECONDS, STEP_SECONDS = 20e-6, 0.05, 0.1
"""CPU seconds for each byte, for one step of a body below `SMALL` bytes, and for one step on the event loop."""
MEMORY_PER_BYTE, FREE_MEMORY = 64, 24 * 2**20
"""Bytes of memory for each byte of a body, and bytes that are always allowed."""
SMALL = 64 * 1024
LIMIT = 20 * 2**20
"""Maximum size of a body in bytes, as in the receivers."""
SIZES = (100, 5_000, 60_000, 60_000, 120_000, 250_000, 400_000)
MADE = 30
"""Number of inputs in the corpus for each decoder."""
_MEMORY = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_libc = ctypes.CDLL(None)


def inflate(encoding: str) -> Reader:
    """Return a function that decompresses a body."""
    return lambda body: decompress(encoding, body, LIMIT)


def zipkin(form: ModuleType) -> Reader:
    """Return a function that decodes a Zipkin body in steps, as the receiver does."""

    def read(body: bytes) -> Generator[None, None, object]:
        decoder = yield from form.decoding(body, time.time_ns(), max_items=DEFAULT_MAX_ITEMS)
        return decoder.traces.body()

    return read


def jaeger(body: bytes) -> Generator[None, None, object]:
    """Decode Jaeger's JSON in steps, as the receiver does."""
    traces = yield from jaeger_json.decoding(body, time.time_ns())
    return traces.body()


def otlp_json(signal: Signal) -> Reader:
    """Return a function that decodes and checks a body in OTLP/JSON."""
    check = checker(signal)
    return lambda body: check(decode(signal, body))


READERS: dict[str, tuple[Reader, bodies.Maker]] = {
    **{f"otlp {signal.value}": (checker(signal), bodies.protobuf_body) for signal in Signal},
    **{f"otlp {signal.value}, full": (checker(signal, full=True), bodies.protobuf_body) for signal in Signal},
    **{
        f"otlp {signal.value}, in steps": (StepwiseChecker(signal, full=True).steps, bodies.protobuf_body)
        for signal in Signal
    },
    **{f"otlp json {signal.value}": (otlp_json(signal), bodies.json_body) for signal in Signal},
    "zipkin v2": (zipkin(from_json), bodies.json_body),
    "zipkin v1": (zipkin(from_v1), bodies.json_body),
    "zipkin proto": (zipkin(from_proto), bodies.protobuf_body),
    "jaeger json": (jaeger, bodies.json_body),
    "jaeger thrift": (lambda body: from_thrift.decode(body).body(), bodies.thrift_body),
    "jaeger proto": (lambda body: jaeger_proto.decode(body).body(), bodies.protobuf_body),
    "gzip": (inflate("gzip"), bodies.gzip_body),
    "gzip twice": (inflate("gzip, gzip"), bodies.gzip_body),
    "many codings": (inflate(", ".join(["gzip"] * 300)), bodies.gzip_body),
    "deflate": (inflate("deflate"), bodies.deflate_body),
    "zlib": (inflate("zlib"), bodies.zlib_body),
    "zlib twice": (inflate("zlib, zlib"), bodies.zlib_body),
    "zstd": (inflate("zstd"), bodies.zstd_body),
    "zstd twice": (inflate("zstd, zstd"), bodies.zstd_body),
}
"""Decoders, and the function that builds expensive bodies for each."""
_NAMES = tuple(READERS)
_IN_THREAD: dict[str, Callable[[bytes], bool]] = {
    **{name: is_long_json for name in _NAMES if "json" in name or name in {"zipkin v1", "zipkin v2"}},
    "zipkin proto": lambda body: len(body) >= OFF_LOOP,
    "jaeger thrift": lambda body: len(body) >= THRIFT_OFF_LOOP,
    "jaeger proto": lambda body: len(body) >= MESSAGE_OFF_LOOP,
}
"""By decoder: a function that returns whether the receiver decodes a body in a thread, and not on the event loop."""
_INFLATING = frozenset({bodies.gzip_body, bodies.deflate_body, bodies.zlib_body, bodies.zstd_body})


def cost(data: bytes) -> None:
    """Decode the bytes after the first one, and the expensive body with this seed."""
    if not data:
        return
    name = _NAMES[data[0] % len(_NAMES)]
    chance = random.Random(data)
    for body in (data[1:], READERS[name][1](chance, chance.choice(SIZES))):
        within_budget(name, body)


def within_budget(name: str, body: bytes) -> None:
    """Assert that decoding `body` stays within the budget for its size, in one of three attempts."""
    read, make = READERS[name]
    output = min(max(FREE_OUTPUT, MAX_RATIO * len(body)), LIMIT) if make in _INFLATING else 0
    seconds = SMALL_SECONDS if len(body) < SMALL else SECONDS_PER_BYTE * len(body)
    if seconds > STEP_SECONDS and name in _IN_THREAD and not _IN_THREAD[name](body):
        seconds = STEP_SECONDS
    memory = FREE_MEMORY + MEMORY_PER_BYTE * len(body) + 2 * output  # in parts, and joined
    for attempt in range(3):
        if attempt:
            gc.collect()
        took, longest, grown = measured(read, body)
        if longest <= seconds and took <= max(seconds, SECONDS_PER_BYTE * len(body)) and grown <= memory:
            return
        if attempt == 2:
            message = f"{name}: {len(body)} bytes took {took * 1e3:.1f} ms and {grown / 2**20:.1f} MiB"
            raise AssertionError(message)


def measured(read: Reader, body: bytes) -> tuple[float, float, int]:
    """Return the CPU seconds for decoding a body, those of its longest step, and the bytes of memory used.

    Between steps the event loop can serve other requests. The body may be refused.
    """
    _libc.malloc_trim(0)
    before = _reset_peak()
    started = last = time.process_time()
    longest = 0.0
    with suppress(ConsumeError):
        steps = read(body)
        if isinstance(steps, Generator):
            for _ in steps:
                now = time.process_time()
                longest, last = max(longest, now - last), now
    ended = time.process_time()
    return ended - started, max(longest, ended - last), _status("VmHWM") - before


def _reset_peak() -> int:
    """Reset the peak of the resident set; return the current size."""
    try:
        _RESET.write_text("5")
    except OSError:  # not Linux, or not permitted: use the peak of the whole process
        return _status("VmHWM")
    return _status("VmRSS")


def _status(field: str) -> int:
    """Return a value of this process in bytes; 0 if it is not available."""
    try:
        text = _MEMORY.read_text()
    except OSError:
        return 0
    return int(text.partition(f"{field}:")[2].split(maxsplit=1)[0]) * 1024


def corpus() -> list[bytes]:
    """Return small bodies that are expensive for each decoder; each is also a seed for other bodies."""
    gc.freeze()  # imported objects are not garbage, and traversing them takes time
    return [
        bytes([index]) + make(random.Random(seed), SIZES[seed % 3])
        for index, (_, make) in enumerate(READERS.values())
        for seed in range(MADE)
    ]


if __name__ == "__main__":
    sys.exit(main(cost, corpus(), __doc__))
