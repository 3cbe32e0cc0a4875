"""Decode large bodies without blocking the event loop: in steps on it, or in a few threads beside it.

Bodies of some hundred kilobytes are decoded on the loop, one step in each of its turns, in the order of their arrival.
Larger ones are decoded in threads, which all receivers of the process share. What is decoded is delivered on the loop.

Invariants:

* What waits is bounded in bytes; what is being decoded counts in the process's `InFlight`, as the objects it becomes.
* Each body that was accepted is delivered or fails exactly once, whether its client is still connected or not;
  `drain` waits until none is left.
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

    from otelwp_agent.transport.in_flight import InFlight

    Steps = Generator[None, None, Any]
    """Decodes a body in steps of some milliseconds, and returns what it holds."""

Answer = TypeVar("Answer")

OFF_LOOP = 512 * 1024
"""Bytes from which on a body is decoded in a thread: telemetry in JSON takes 8 ms, the densest body 80 ms."""

THREADS = 2
"""Bodies that are decoded at the same time in the process: they take turns on one core, because of the GIL."""

MAX_WAITING = 64 * 2**20
"""Bytes of one receiver's bodies that wait for being decoded, or are."""

OBJECTS = 10
"""Bytes of the objects that a byte of JSON or Thrift becomes while it is decoded, about."""


class Decoding(Generic[Answer]):
    """The large bodies of one receiver. Use it from the event loop's thread alone."""

    def __init__(self, in_flight: InFlight, log: structlog.typing.FilteringBoundLogger) -> None:
        """Count what is being decoded in `in_flight`."""
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
        self, steps: Steps, size: int, deliver: Callable[[Any], Answer | asyncio.Future[Answer]]
    ) -> asyncio.Future[Answer]:
        """Decode a body of `size` bytes, and return the future of what `deliver` answers for what it holds.

        The future fails with what decoding or `deliver` raises. Raises `Overloaded` if there is no capacity.
        """
        self.admit()
        body = _Body(steps, size, deliver, asyncio.get_running_loop().create_future())
        self._waiting_bytes += size
        self._answers.add(body.answer)
        body.answer.add_done_callback(self._answered)
        if size >= OFF_LOOP:
            self._threaded.append(body)
            self._start_threads()
        else:
            self._stepping.append(body)
            if len(self._stepping) == 1:
                asyncio.get_running_loop().call_soon(self._step)
        return body.answer

    async def drain(self) -> None:
        """Wait until every body that was accepted has been delivered, or has failed."""
        while self._answers:
            await asyncio.wait(self._answers)

    def _answered(self, answer: asyncio.Future[Answer]) -> None:
        self._answers.discard(answer)
        if not answer.cancelled():
            answer.exception()  # seen, though the client may be gone

    def _step(self) -> None:
        """Decode another part of the body that has waited longest."""
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
            self._in_flight.reserve(OBJECTS * body.size)
            decoded = asyncio.get_running_loop().run_in_executor(_executor(), _exhaust, body.steps)
            decoded.add_done_callback(partial(self._decoded, body))

    def _decoded(self, body: _Body[Answer], decoded: asyncio.Future[Any]) -> None:
        self._threads -= 1
        self._in_flight.release(OBJECTS * body.size)
        error = asyncio.CancelledError() if decoded.cancelled() else decoded.exception()
        self._end(body, None if error else decoded.result(), error)
        self._start_threads()

    def _end(self, body: _Body[Answer], decoded: Any, error: BaseException | None) -> None:  # noqa: ANN401 - whatever it holds
        """Deliver a body, or let its answer fail."""
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
    """A body that is being decoded, or waits for that."""

    __slots__ = ("answer", "deliver", "size", "steps")

    def __init__(
        self,
        steps: Steps,
        size: int,
        deliver: Callable[[Any], Answer | asyncio.Future[Answer]],
        answer: asyncio.Future[Answer],
    ) -> None:
        self.steps = steps
        self.size = size
        self.deliver = deliver
        self.answer = answer

    def follow(self, told: asyncio.Future[Answer]) -> None:
        """Answer as what the body was delivered to does."""
        if self.answer.done():
            return
        if told.cancelled():
            self.answer.cancel()
        elif (error := told.exception()) is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(told.result())


def in_one_step(function: Callable[..., Any], *arguments: object) -> Steps:
    """Return steps that call `function` once."""
    yield from ()
    return function(*arguments)


def _exhaust(steps: Steps) -> Any:  # noqa: ANN401 - whatever the body holds
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


_pool: list[ThreadPoolExecutor] = []


def _executor() -> ThreadPoolExecutor:
    """Return the threads of the process, which start when a body needs them."""
    if not _pool:
        _pool.append(ThreadPoolExecutor(THREADS, thread_name_prefix="decode"))
    return _pool[0]
