"""Decode or check large bodies without blocking the event loop: in steps on the loop, or in a few threads.

Bodies of some hundred kilobytes are decoded on the loop in the order of arrival, one step in each iteration of the
loop. Larger ones, and those with many small values, are decoded in threads that all receivers of the process share.
Decoded bodies are delivered on the loop.

Invariants:

* The waiting bodies are limited in bytes. A body that is being decoded counts in the process's `InFlight`, with the
  estimated size of its decoded objects.
* Each accepted body is delivered or fails exactly once, whether its client is still connected or not; `drain` waits
  until none is left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from otelwp_agent.errors import ConsumeError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import structlog

    from otelwp_agent.model.stepwise_checking import StepwiseChecker
    from otelwp_agent.transport.in_flight import InFlight

    Steps = Generator[None, None, Any]
    """A generator that decodes a body in steps of some milliseconds and returns the decoded data."""

Answer = TypeVar("Answer")

OFF_LOOP = 512 * 1024
"""Size in bytes from which on a body is decoded in a thread.

On the loop, this size takes 8 ms for typical telemetry in JSON. JSON with many small values takes up to a hundred times
as long; see `is_long_json`.
"""

MAX_COMMAS = 16_384
"""Number of commas from which on a JSON body is decoded in a thread.

The slowest values take 3 µs each, so this number takes 50 ms on the loop. Typical telemetry has a comma for each 20 to
30 bytes, and reaches this number with 300 to 500 KB. In a thread, it would take 1 ms more.
"""

THREADS = 2
"""Number of bodies that the process decodes at the same time. Because of the GIL, they share one core."""

MAX_WAITING = 64 * 2**20
"""Maximum number of bytes of one receiver's bodies that are being decoded or wait for it."""

OBJECTS = 10
"""Estimated memory of the objects that one byte of JSON or Thrift becomes while it is decoded, in bytes."""


class Decoding(Generic[Answer]):
    """Decodes the large bodies of one receiver. Use it only from the event loop's thread."""

    def __init__(self, in_flight: InFlight, log: structlog.typing.FilteringBoundLogger) -> None:
        """Count the bodies that are being decoded in `in_flight`."""
        self._in_flight = in_flight
        self._log = log
        self._stepping: deque[_Body[Answer]] = deque()
        self._threaded: deque[_Body[Answer]] = deque()
        self._threads = 0
        self._waiting_bytes = 0
        self._answers: set[asyncio.Future[Answer]] = set()

    def admit(self) -> None:
        """Raise `Overloaded` if a large body would be refused now."""
        if self._waiting_bytes > MAX_WAITING or self._in_flight.above_hard:
            raise Overloaded("more large bodies than can be decoded in time", reason="decoding")

    def run(
        self,
        steps: Steps,
        size: int,
        deliver: Callable[[Any], Answer | asyncio.Future[Answer]],
        *,
        in_thread: bool = False,
        reserve: int | None = None,
    ) -> asyncio.Future[Answer]:
        """Decode a body of `size` bytes; return a future with the result of `deliver`, called with the decoded data.

        With `in_thread`, the body is decoded in a thread whatever its size is; `reserve` is the number of bytes to
        reserve meanwhile. The future fails with the error that decoding or `deliver` raises. Raises `Overloaded` if
        there is no capacity.
        """
        self.admit()
        reserved = OBJECTS * size if reserve is None else reserve
        body = _Body(steps, size, reserved, deliver, asyncio.get_running_loop().create_future())
        self._waiting_bytes += size
        self._answers.add(body.answer)
        body.answer.add_done_callback(self._answered)
        if size >= OFF_LOOP or in_thread:
            self._threaded.append(body)
            self._start_threads()
        else:
            self._stepping.append(body)
            if len(self._stepping) == 1:
                asyncio.get_running_loop().call_soon(self._step)
        return body.answer

    def check(
        self, checker: StepwiseChecker, body: bytes, deliver: Callable[[int], Answer | asyncio.Future[Answer]]
    ) -> asyncio.Future[Answer]:
        """Check a large OTLP request in a thread; return what `run` returns. `deliver` gets the number of items."""
        return self.run(checker.steps(body), len(body), deliver, in_thread=True, reserve=checker.memory)

    async def drain(self) -> None:
        """Wait until every accepted body has been delivered or has failed."""
        while self._answers:
            await asyncio.wait(self._answers)

    def _answered(self, answer: asyncio.Future[Answer]) -> None:
        self._answers.discard(answer)
        if not answer.cancelled():
            answer.exception()  # mark the error as retrieved: the client may have disconnected

    def _step(self) -> None:
        """Decode the next part of the body that has waited longest."""
        body = self._stepping[0]
        try:
            next(body.steps)
        except StopIteration as stop:
            self._end(self._stepping.popleft(), stop.value, None)
        except Exception as error:  # noqa: BLE001 - reported to the sender, as by the server
            self._end(self._stepping.popleft(), None, error)
        if self._stepping:
            asyncio.get_running_loop().call_soon(self._step)

    def _start_threads(self) -> None:
        while self._threaded and self._threads < THREADS:
            body = self._threaded.popleft()
            self._threads += 1
            self._in_flight.reserve(body.reserved)
            decoded = asyncio.get_running_loop().run_in_executor(executor(), _exhaust, body.steps)
            decoded.add_done_callback(partial(self._decoded, body))

    def _decoded(self, body: _Body[Answer], decoded: asyncio.Future[Any]) -> None:
        self._threads -= 1
        self._in_flight.release(body.reserved)
        error = asyncio.CancelledError() if decoded.cancelled() else decoded.exception()
        self._end(body, None if error else decoded.result(), error)
        self._start_threads()

    def _end(self, body: _Body[Answer], decoded: Any, error: BaseException | None) -> None:  # noqa: ANN401 - any decoded data
        """Deliver a decoded body, or fail its future with `error`."""
        self._waiting_bytes -= body.size
        if error is None:
            try:
                answer = body.deliver(decoded)
            except Exception as failed:  # noqa: BLE001 - reported to the sender, as by the server
                error = failed
            else:
                if isinstance(answer, asyncio.Future):
                    answer.add_done_callback(body.follow)
                elif not body.answer.done():
                    body.answer.set_result(answer)
        if error is not None:
            if not isinstance(error, ConsumeError):
                self._log.error("request failed", exc_info=error)
            if not body.answer.done():
                body.answer.set_exception(error)


class _Body(Generic[Answer]):
    """A body that is being decoded or waits for it."""

    __slots__ = ("answer", "deliver", "reserved", "size", "steps")

    def __init__(
        self,
        steps: Steps,
        size: int,
        reserved: int,
        deliver: Callable[[Any], Answer | asyncio.Future[Answer]],
        answer: asyncio.Future[Answer],
    ) -> None:
        self.steps = steps
        self.size = size
        self.reserved = reserved
        self.deliver = deliver
        self.answer = answer

    def follow(self, delivery: asyncio.Future[Answer]) -> None:
        """Copy the result of `delivery` to the future of this body."""
        if self.answer.done():
            return
        if delivery.cancelled():
            self.answer.cancel()
        elif (error := delivery.exception()) is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(delivery.result())


def is_long_json(body: bytes) -> bool:
    """Return whether a JSON body must be decoded in a thread: it is large, or has many values.

    Values are counted by the commas between them; text with many commas is decoded in a thread, too.
    """
    return len(body) >= OFF_LOOP or (len(body) >= 2 * MAX_COMMAS and body.count(b",") >= MAX_COMMAS)


def in_one_step(function: Callable[..., Any], *arguments: object) -> Steps:
    """Return a generator that calls `function` once, without intermediate steps."""
    yield from ()
    return function(*arguments)


def _exhaust(steps: Steps) -> Any:  # noqa: ANN401 - any decoded data
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


_pool: list[ThreadPoolExecutor] = []


def executor() -> ThreadPoolExecutor:
    """Return the thread pool in which the process decodes and encodes bodies, created at the first call."""
    if not _pool:
        _pool.append(ThreadPoolExecutor(THREADS, thread_name_prefix="codec"))
    return _pool[0]
