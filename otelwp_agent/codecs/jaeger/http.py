"""Jaeger spans over HTTP, JSON and Thrift on one path: what the receivers `jaeger_json` and `jaeger` have in common.

A page waits for the answer, so it comes at once: a small body is decoded first, so that a wrong one gets its 400; a
larger one is answered first and judged after, in steps that let others in between. Either way the spans are handed over
without an await: a client that is gone by then has not sent them for nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.codecs.jaeger import from_json
from otelwp_agent.codecs.mending import MENDED, Mended
from otelwp_agent.errors import ConsumeError, MalformedError, Overloaded, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.http_messages import Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import structlog

    from otelwp_agent.codecs.jaeger.receiving import Traces
    from otelwp_agent.config import blocks
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.transport.in_flight import InFlight
    from otelwp_agent.transport.overload import Drops

INSTRUMENTS = (REFUSED_REQUESTS, MENDED)

PATH = "/api/traces"
METHODS = ("POST", "PUT")
THRIFT_TYPES = frozenset({"application/x-thrift", "application/vnd.apache.thrift.binary"})

AT_ONCE = 32 * 1024
"""Bytes of the largest JSON body that is decoded before it is answered: about 50 spans, half a millisecond on a slow
machine (benchmarks/jaeger.py)."""

THRIFT_AT_ONCE = 8 * 1024
"""The same for Thrift, which takes four times as long."""

MAX_WAITING = 32 * 2**20
"""Bytes of the bodies that have been answered and wait to be judged; beyond that there is no room."""

_ACCEPTED = Response(202)
_GZIP = b"\x1f\x8b"
_JSON_BEGINS = frozenset(b"{[ \t\r\n\xef")
"""The bytes that a JSON object or list begins with, blanks and a byte order mark before it included."""
_THRIFT_BEGINS = frozenset(b"\x0c\x0f\x80\x00")
"""The bytes that a Thrift struct whose first field is a struct or a list begins with, or a message's envelope."""


class Entry(Protocol):
    """Where batches go."""

    @property
    def answers_late(self) -> bool:
        """Whether a sender may only be answered when the future that `consume` returns has its result."""

    def admit(self) -> None:
        """Raise `Overloaded` if a batch would be refused now."""

    def consume(self, batch: Batch, answer: object = None) -> asyncio.Future[Any] | None:
        """Take the batch, or raise `ConsumeError` having taken nothing of it.

        Returns `None` if the sender may be answered at once, else a future that gets `answer` when it may be.
        """


class JaegerHttp:
    """Takes posts of Jaeger spans, and hands batches to whatever `entry` returns at that time."""

    def __init__(  # noqa: PLR0913 - what a receiver knows
        self,
        settings: blocks.HttpReceiver,
        entry: Callable[[], Entry | None],
        *,
        receiver: str,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        registry: Registry,
        clock: Callable[[], float],
        drops: Drops,
        in_flight: InFlight | None = None,
    ) -> None:
        """Serve for the component `receiver` (its id) under `name` (`receivers/jaeger_json`)."""
        self._entry = entry
        self._receiver = receiver
        self._log = log
        self._drops = drops.when(settings.on_overload)
        self._refused = refusals(registry, receiver, "http")
        self._limit = settings.max_request_body_size
        self.mended = Mended(receiver, log, registry)
        self._lost = LogLimit(clock)
        self._waiting: deque[tuple[Generator[None, None, Traces], _Sender, int, asyncio.Future[Response] | None]] = (
            deque()
        )
        self._waiting_bytes = 0
        self.server = HttpServer(
            settings,
            {PATH: Route(self.handle, METHODS, self._admit, same_origin=True)},
            name=name,
            log=log,
            on_refused=self._refused,
            drops=self._drops,
            in_flight=in_flight,
        )

    async def start(self) -> None:
        """Listen; raise `StartError` with nothing left open."""
        await self.server.start()
        also = {"also": self.server.also} if self.server.also else {}
        endpoint, port = self.server.address, self.server.port
        self._log.info("receiver listening", transport="http", endpoint=endpoint, port=port, **also)

    async def shutdown(self) -> None:
        """Stop listening, and hand on what was answered and not judged yet."""
        await self.server.shutdown()
        while self._waiting:
            self._step()

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer a request."""
        sender = request.head.memo
        if sender is None:
            sender = request.head.memo = _Sender(self._receiver, request.head)
        if self._entry() is None:
            return text_error(
                404, f"no pipeline takes traces from the receiver {self._receiver}; add it to service.pipelines"
            )
        body = request.body
        if not body:
            raise MalformedError(
                "the body is empty: PHP's json_encode gives nothing for text that is not UTF-8; encode with "
                "JSON_INVALID_UTF8_SUBSTITUTE",
                reason="empty",
            )
        if body.startswith(_GZIP):
            body = decompress("gzip", body, self._limit)
        if len(body) > THRIFT_AT_ONCE and len(body) > (AT_ONCE if _is_json(body, sender) else THRIFT_AT_ONCE):
            return self._put_off(body, sender)
        return self._hand_over(_decode(body, sender), sender) or _ACCEPTED

    def _admit(self) -> None:
        if self._waiting_bytes > MAX_WAITING:
            raise Overloaded("larger bodies than can be decoded in time", reason="waiting")
        entry = self._entry()
        if entry is not None:
            entry.admit()

    def _hand_over(self, traces: Traces, sender: _Sender) -> asyncio.Future[Response] | None:
        """Hand the spans on; return what the sender has to wait for, if it has to."""
        items, entry = traces.spans, self._entry()
        told = None
        if items and entry is not None:
            batch = Batch(Signal.TRACES, traces.body(), items, sender.origin, ((Receipt(items), items),))
            told = entry.consume(batch, _ACCEPTED)
        if traces.mended:
            self.mended.add(traces, sender.user_agent)
        return told

    # -- large bodies

    def _put_off(self, body: bytes, sender: _Sender) -> Response | asyncio.Future[Response]:
        """Have a body decoded by and by; answer at once, unless the answer says that a journal has it."""
        entry = self._entry()
        answer: asyncio.Future[Response] | None = None
        if entry is not None and entry.answers_late:
            answer = asyncio.get_running_loop().create_future()
        self._waiting.append((_decoding(body, sender), sender, len(body), answer))
        self._waiting_bytes += len(body)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._go_on)  # the answer is written before that
        return answer or _ACCEPTED

    def _go_on(self) -> None:
        if self._waiting:
            self._step()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _step(self) -> None:
        """Decode another part of the body that has waited longest, and hand it over when it is done."""
        steps, sender, size, answer = self._waiting[0]
        try:
            next(steps)
        except StopIteration as stop:
            self._done(size)
            try:
                told = self._hand_over(stop.value, sender)
            except ConsumeError as error:
                self._fail(error, sender, answer)
            else:
                if told is not None:
                    told.add_done_callback(lambda told: self._heard(told, sender, answer))
                elif answer is not None:
                    answer.set_result(_ACCEPTED)
        except ConsumeError as error:
            self._done(size)
            self._fail(error, sender, answer)
        except Exception as error:  # noqa: BLE001 - as the server does with a request that it still has to answer
            self._done(size)
            self._refused("internal")
            self._log.exception("request failed", path=PATH)
            if answer is not None and not answer.done():
                answer.set_exception(error)

    def _heard(self, told: asyncio.Future[Response], sender: _Sender, answer: asyncio.Future[Response] | None) -> None:
        """Hear what the sender is told, or would have been told, had it not been answered before."""
        error = None if told.cancelled() else told.exception()
        if isinstance(error, ConsumeError):
            self._fail(error, sender, answer)
        elif answer is not None and not answer.done():
            answer.set_result(_ACCEPTED)

    def _fail(self, error: ConsumeError, sender: _Sender, answer: asyncio.Future[Response] | None) -> None:
        """Tell the sender, if it waits for the answer; else account for what is lost."""
        if answer is None:
            self._lose(error, sender)
        elif not answer.done():
            answer.set_exception(error)

    def _done(self, size: int) -> None:
        self._waiting.popleft()
        self._waiting_bytes -= size

    def _lose(self, error: ConsumeError, sender: _Sender) -> None:
        """Account for a body that was answered with success and cannot be taken."""
        if self._drops is not None and isinstance(error, RetryableError):
            self._drops.add(error, sender.user_agent)
            return
        self._refused(error.reason)
        if isinstance(error, RetryableError):
            if requests := self._lost.take():
                self._log.error("requests dropped after they were accepted", requests=requests, reason=str(error))
        else:
            self.mended.tell(sender.user_agent, error)


class _Sender:
    """What a request's head tells of who sent it."""

    __slots__ = ("origin", "thrift", "user_agent")

    def __init__(self, receiver: str, head: Head) -> None:
        self.origin = Origin(receiver, "http", headers=head.headers)
        self.user_agent = head.headers.get("user-agent", "")
        self.thrift = head.media_type in THRIFT_TYPES


def _is_json(body: bytes, sender: _Sender) -> bool:
    """Whether a body is JSON, or else Thrift: by its first byte, whatever its content type says."""
    first = body[0]
    if first in _JSON_BEGINS:
        return True
    if sender.thrift or first in _THRIFT_BEGINS:
        return False
    raise MalformedError("the body is neither JSON, which begins with { or [, nor Thrift in the binary protocol")


def _decode(body: bytes, sender: _Sender) -> Traces:
    if _is_json(body, sender):
        return from_json.decode(body, time.time_ns())
    from otelwp_agent.codecs.jaeger import from_thrift  # noqa: PLC0415 - for who sends Thrift

    return from_thrift.decode(body)


def _decoding(body: bytes, sender: _Sender) -> Generator[None, None, Traces]:
    """Decode in steps."""
    if _is_json(body, sender):
        return (yield from from_json.decoding(body, time.time_ns()))
    return _decode(body, sender)
