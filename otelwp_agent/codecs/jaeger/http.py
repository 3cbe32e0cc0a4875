"""Jaeger spans over HTTP, JSON and Thrift on one path: what the receivers `jaeger_json` and `jaeger` have in common.

A page waits for the answer, so it comes at once: a small body is decoded first, so that a wrong one gets its 400; a
larger one is answered first and judged after, in steps that let others in between. Either way the spans are handed over
without an await: a client that is gone by then has not sent them for nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.codecs.jaeger import from_json
from otelwp_agent.codecs.mending import MENDED, Mended
from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.decoding import Decoding
from otelwp_agent.transport.http_messages import Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals

if TYPE_CHECKING:
    import asyncio
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

SMALLEST_SPAN = 16
"""Bytes of the smallest span, in JSON and in Thrift."""

_ACCEPTED = Response(202)
_GZIP = b"\x1f\x8b"
_JSON_BEGINS = frozenset(b"{[ \t\r\n\xef")
"""The bytes that a JSON object or list begins with, blanks and a byte order mark before it included."""
_THRIFT_BEGINS = frozenset(b"\x0c\x0f\x80\x00")
"""The bytes that a Thrift struct whose first field is a struct or a list begins with, or a message's envelope."""


class BatchSink(Protocol):
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
        entry: Callable[[], BatchSink | None],
        *,
        receiver: str,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        registry: Registry,
        clock: Callable[[], float],
        drops: Drops,
        in_flight: InFlight,
        max_items: int,
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
        self._max_items = max_items
        self._decoding: Decoding[Response] = Decoding(in_flight, log)
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
        await self._decoding.drain()

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer a request."""
        sender = request.head.memo
        if sender is None:
            sender = request.head.memo = _HeadReader(self._receiver, request.head)
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
        if body.startswith(_GZIP) and not request.head.encoding:
            body = decompress("gzip", body, self._limit)
        if len(body) > THRIFT_AT_ONCE and len(body) > (AT_ONCE if _is_json(body, sender) else THRIFT_AT_ONCE):
            return self._put_off(body, sender)
        traces = _decode(body, sender, self._max_items)
        return self._hand_over((traces, traces.body()), sender)

    def _admit(self) -> None:
        self._decoding.admit()
        entry = self._entry()
        if entry is not None:
            entry.admit()

    def _hand_over(self, decoded: tuple[Traces, bytes], sender: _HeadReader) -> Response | asyncio.Future[Response]:
        """Forward the spans; return the answer, or its future if the sender has to wait."""
        traces, body = decoded
        items, entry = traces.spans, self._entry()
        told = None
        if items and entry is not None:
            batch = Batch(Signal.TRACES, body, items, sender.origin, ((Receipt(items), items),))
            told = entry.consume(batch, _ACCEPTED)
        if traces.mended:
            self.mended.add(traces, sender.user_agent)
        return told or _ACCEPTED

    # -- large bodies

    def _put_off(self, body: bytes, sender: _HeadReader) -> Response | asyncio.Future[Response]:
        """Have a body decoded after it was answered.

        It is decoded before if the answer says that a journal has it, or if it may hold more spans than are accepted.
        """
        entry = self._entry()
        steps = _steps(body, sender, self._max_items)
        answer = self._decoding.run(steps, len(body), lambda decoded: self._hand_over(decoded, sender))
        if (entry is not None and entry.answers_late) or len(body) >= SMALLEST_SPAN * self._max_items:
            return answer
        answer.add_done_callback(lambda answer: self._heard(answer, sender))
        return _ACCEPTED

    def _heard(self, answer: asyncio.Future[Response], sender: _HeadReader) -> None:
        """Account for what went wrong with a body that was answered before."""
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, ConsumeError):
            self._lose(error, sender)
        elif error is not None:
            self._refused("internal")

    def _lose(self, error: ConsumeError, sender: _HeadReader) -> None:
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


class _HeadReader:
    """What a request's head tells of who sent it."""

    __slots__ = ("origin", "thrift", "user_agent")

    def __init__(self, receiver: str, head: Head) -> None:
        self.origin = Origin(receiver, "http", headers=head.headers)
        self.user_agent = head.headers.get("user-agent", "")
        self.thrift = head.media_type in THRIFT_TYPES


def _is_json(body: bytes, sender: _HeadReader) -> bool:
    """Whether a body is JSON, or else Thrift: by its first byte, whatever its content type says."""
    first = body[0]
    if first in _JSON_BEGINS:
        return True
    if sender.thrift or first in _THRIFT_BEGINS:
        return False
    raise MalformedError("the body is neither JSON, which begins with { or [, nor Thrift in the binary protocol")


def _decode(body: bytes, sender: _HeadReader, max_items: int) -> Traces:
    if _is_json(body, sender):
        return from_json.decode(body, time.time_ns(), max_items)
    from otelwp_agent.codecs.jaeger import from_thrift  # noqa: PLC0415 - for who sends Thrift

    return from_thrift.decode(body, max_items)


def _steps(body: bytes, sender: _HeadReader, max_items: int) -> Generator[None, None, tuple[Traces, bytes]]:
    """Decode in steps; return what a body holds, and that as an OTLP request."""
    if _is_json(body, sender):
        traces = yield from from_json.decoding(body, time.time_ns(), max_items)
    else:
        traces = _decode(body, sender, max_items)
    return traces, traces.body()
