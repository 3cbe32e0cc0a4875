"""Measure how long the check of a large OTLP request holds the GIL and the event loop.

For each body, the check in one call (on the loop) and the check in steps (in a thread, as the receiver runs it) are
measured alternately. The columns are the CPU time of the check, the longest CPU time of its thread between two turns of
another thread (the GIL), and the longest CPU time of the event loop's thread between two turns of another task.

`python benchmarks/holds.py --mib 20 --rounds 7`; with `OTELWP_PURE_PYTHON=1`, without the C extension.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import structlog  # noqa: E402 - after the path

from otelwp_agent.errors import ConsumeError  # noqa: E402
from otelwp_agent.model.checking import checker  # noqa: E402
from otelwp_agent.model.messages import request_class  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from otelwp_agent.model.stepwise_checking import StepwiseChecker  # noqa: E402
from otelwp_agent.model.wire import prefixed  # noqa: E402
from otelwp_agent.transport.decoding import Decoding  # noqa: E402
from otelwp_agent.transport.in_flight import InFlight  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TURN = 0.0003
"""Seconds between two turns of the other thread and of the other task."""


def spans(size: int) -> bytes:
    """Return spans with four attributes, in one scope."""
    request = request_class(Signal.TRACES)()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="GET /shop/basket", kind=2)
    span.trace_id, span.span_id = bytes(range(16)), bytes(range(8))
    span.start_time_unix_nano, span.end_time_unix_nano = 1_700_000_000_000_000_000, 1_700_000_000_100_000_000
    for key in ("http.method", "url"):
        span.attributes.add(key=key).value.string_value = "GET"
    span.attributes.add(key="status").value.int_value = 200
    span.attributes.add(key="ok").value.bool_value = True
    field = prefixed(b"\x12", span.SerializeToString())
    return enclosed(field * (size // len(field)), 2)


def enclosed(fields: bytes, levels: int) -> bytes:
    """Return fields inside a resource, a scope and a span, or the first `levels` of these."""
    for tag in (b"\x0a", b"\x12", b"\x12")[:levels][::-1]:
        fields = prefixed(tag, fields)
    return fields


def varints(size: int) -> bytes:
    """Return an exponential histogram with as many counts of buckets."""
    fields = bytes(size)
    for tag in (b"\x12", b"\x42", b"\x0a", b"\x52", b"\x12", b"\x12", b"\x0a"):
        fields = prefixed(tag, fields)
    return fields


MOST = 1_900_000
"""Number of messages in the densest bodies, below the limit."""
BODIES: dict[str, tuple[Signal, Callable[[int], bytes]]] = {
    "spans": (Signal.TRACES, spans),
    "groups": (Signal.TRACES, lambda size: b"\x1b\x1c" * (size // 2)),
    "groups in a group": (Signal.TRACES, lambda size: b"\x1b" + b"\x1b\x1c" * (size // 2 - 1) + b"\x1c"),
    "groups in a span": (Signal.TRACES, lambda size: enclosed(b"\x1b\x1c" * (size // 2), 3)),
    "unknown fields": (Signal.TRACES, lambda size: b"\x78\x01" * (size // 2)),
    "links": (Signal.TRACES, lambda size: enclosed(b"\x6a\0" * min(MOST, size // 2), 3)),
    "empty spans": (Signal.TRACES, lambda size: enclosed(b"\x12\0" * min(249_000, size // 2), 2)),
    "text": (Signal.TRACES, lambda size: enclosed(prefixed(b"\x2a", b"\xf0\x9f\x98\x80" * (size // 4)), 3)),
    "packed numbers": (Signal.METRICS, varints),
}


class GilWatch(threading.Thread):
    """A thread that records the longest CPU time of another thread between two of its own turns."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self.watched: set[int] = set()
        self._last: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Look at the watched threads until the end."""
        while not self._ended.is_set():
            self.look()
            time.sleep(TURN)

    def look(self) -> None:
        """Read the CPU time of each watched thread."""
        for thread in [*threading.enumerate()]:
            if thread is self or thread.ident is None or not thread.is_alive():
                continue
            used = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            last = self._last.get(thread.ident, used)
            self.longest = max(self.longest, used - last)
            self._last[thread.ident] = used

    def end(self) -> float:
        """Stop; return the longest time."""
        self._ended.set()
        self.join()
        self.look()
        return self.longest


async def turns(longest: list[float]) -> None:
    """Record the longest CPU time of this thread between two turns of this task."""
    last = time.thread_time()
    while True:
        await asyncio.sleep(TURN)
        now = time.thread_time()
        longest[0] = max(longest[0], now - last)
        last = now


async def finished(run: Callable[[], asyncio.Future[int] | int]) -> None:
    """Run a check to its end, whatever the verdict is."""
    with suppress(ConsumeError):
        answer = run()
        if isinstance(answer, asyncio.Future):
            await answer


async def measured(run: Callable[[], asyncio.Future[int] | int]) -> tuple[float, float, float]:
    """Return the CPU time of a check, and of a second one the longest hold of the GIL and of the loop, in seconds.

    Two checks, because watching takes CPU time.
    """
    before = time.process_time()
    await finished(run)
    used = time.process_time() - before
    longest = [0.0]
    task = asyncio.create_task(turns(longest))
    watch = GilWatch()
    watch.start()
    await asyncio.sleep(0.01)
    await finished(run)
    await asyncio.sleep(0.002)
    task.cancel()
    return used, watch.end(), longest[0]


async def compared(signal: Signal, body: bytes, rounds: int, *, full: bool) -> list[float]:
    """Return the medians of the results of `measured`, in one call and in steps.

    They are not maxima, because on a machine with other load the other thread may have to wait for a processor.
    """
    check, stepwise = checker(signal, full=full), StepwiseChecker(signal, full=full)
    decoding: Decoding[int] = Decoding(InFlight(2**30, 2**31), structlog.get_logger())
    ways = (lambda: check(body), lambda: decoding.check(stepwise, body, lambda items: items))
    found: list[list[tuple[float, float, float]]] = [[], []]
    for _ in range(rounds):
        for results, way in zip(found, ways, strict=True):
            results.append(await measured(way))
    numbers = []
    for results in found:
        numbers += [statistics.median(each) for each in zip(*results, strict=True)]
    return numbers


async def main() -> None:
    """Measure each body and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=20, help="size of each body")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(BODIES), default=list(BODIES), metavar="BODY")
    arguments = parser.parse_args()
    gc.freeze()
    row = "{:18} {:5}" + " {:>9}" * 6
    print(row.format("ms", "", "one call:", "GIL", "loop", "in steps:", "GIL", "loop"))
    for name in arguments.only:
        signal, make = BODIES[name]
        body = make(int(arguments.mib * 2**20))
        for full in (False, True):
            numbers = await compared(signal, body, arguments.rounds, full=full)
            print(row.format(name, "full" if full else "keys", *[f"{1000 * each:.1f}" for each in numbers]))


if __name__ == "__main__":
    asyncio.run(main())
