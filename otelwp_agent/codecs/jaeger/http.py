"""Receive Jaeger spans over HTTP, JSON and Thrift on one path: the common part of `jaeger_json` and `jaeger`.

A web page waits for the answer, so it is sent at once. A small body is decoded first, so that an invalid one is
answered with 400; a larger body is answered first and decoded afterwards, in steps, so that other requests are
processed in between. In both cases the spans are forwarded without an await: they are not lost if the client
disconnects.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.codecs.jaeger import from_json
from otelwp_agent.codecs.repairs import REPAIRS, Repairs
from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.decoding import Decoding, is_long_json
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
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.in_flight import InFlight
    from otelwp_agent.transport.overload import Drops

INSTRUMENTS = (REFUSED_REQUESTS, REPAIRS)

PATH = "/api/traces"
METHODS = ("POST", "PUT")
THRIFT_TYPES = frozenset({"application/x-thrift", "application/vnd.apache.thrift.binary"})

AT_ONCE = 32 * 1024
"""Maximum size in bytes of a JSON body that is decoded before it is answered.

This is about 50 spans, half a millisecond on a slow machine (benchmarks/jaeger.py).
"""

THRIFT_AT_ONCE = 8 * 1024
"""The same for Thrift, which takes four times as long."""

THRIFT_OFF_LOOP = 128 * 1024
"""Size in bytes from which on Thrift is decoded in a thread."""

SMALLEST_SPAN = 16
"""Minimum size of a span in bytes, in JSON and in Thrift."""

_ACCEPTED = Response(202)
_GZIP = b"\x1f\x8b"
_JSON_BEGINS = frozenset(b"{[ \t\r\n\xef")
"""First bytes of a JSON object or list, including white space and a byte order mark before it."""
_THRIFT_BEGINS = frozenset(b"\x0c\x0f\x80\x00")
"""First bytes of a Thrift struct whose first field is a struct or a list, or of a message's envelope."""


class BatchSink(Protocol):
    """The start of a pipeline, which accepts batches."""

    @property
    def answers_late(self) -> bool:
        """Whether a sender must wait for the result of the future that `consume` returns."""

    def admit(self) -> None:
        """Raise `Overloaded` if a batch would be refused now."""

    def consume(self, batch: Batch, answer: object = None) -> asyncio.Future[Any] | None:
        """Accept the batch, or raise `ConsumeError` and accept nothing of it.

        Returns `None` if the sender may be answered at once, else a future that gets `answer` as soon as it may be.
        """


class JaegerHttp:
    """Accepts requests with Jaeger spans, and forwards batches to the pipeline that `entry` returns at that time."""

    def __init__(  # noqa: PLR0913 - everything that a receiver has
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
        gate: Gate | None = None,
    ) -> None:
        """Serve for the component with the id `receiver` and the `name` (`receivers/jaeger_json`)."""
        self._entry = entry
        self._receiver = receiver
        self._log = log
        self._drops = drops.when(settings.on_overload)
        self._refused = refusals(registry, receiver, "http")
        self._limit = settings.max_request_body_size
        self.repairs = Repairs(receiver, log, registry)
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
            gate=gate,
        )

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        await self.server.start()
        also = {"also": self.server.also} if self.server.also else {}
        endpoint, port = self.server.address, self.server.port
        self._log.info("receiver listening", transport="http", endpoint=endpoint, port=port, **also)

    async def shutdown(self) -> None:
        """Stop listening, and forward the bodies that were answered but not decoded yet."""
        await self.server.shutdown()
        await self._decoding.drain()

    def handle(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer a request."""
        sender = request.head.memo
        if sender is None:
            sender = request.head.memo = _HeadReader(self._receiver, request.head)
        if self._entry() is None:
            return text_error(
                404, f"no pipeline accepts traces from the receiver {self._receiver}; add it to service.pipelines"
            )
        body = request.body
        if not body:
            raise MalformedError(
                "the body is empty: PHP's json_encode returns nothing for text that is not UTF-8; encode with "
                "JSON_INVALID_UTF8_SUBSTITUTE",
                reason="empty",
            )
        if body.startswith(_GZIP) and not request.head.encoding:
            body = decompress("gzip", body, self._limit)
        if len(body) > THRIFT_AT_ONCE and len(body) > (AT_ONCE if _is_json(body, sender) else THRIFT_AT_ONCE):
            return self._decode_later(body, sender)
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
        answer = None
        if items and entry is not None:
            batch = Batch(Signal.TRACES, body, items, sender.origin, ((Receipt(items), items),))
            answer = entry.consume(batch, _ACCEPTED)
        if traces.repairs:
            self.repairs.add(traces, sender.user_agent)
        return answer or _ACCEPTED

    # -- large bodies

    def _decode_later(self, body: bytes, sender: _HeadReader) -> Response | asyncio.Future[Response]:
        """Answer a body before it is decoded.

        It is decoded first if the answer means that it is in a journal, if a rate limiter has to count its spans, or if
        it may contain more spans than are accepted.
        """
        entry = self._entry()
        steps = _steps(body, sender, self._max_items)
        is_long = is_long_json(body) if _is_json(body, sender) else len(body) >= THRIFT_OFF_LOOP
        answer = self._decoding.run(
            steps, len(body), lambda decoded: self._hand_over(decoded, sender), in_thread=is_long
        )
        waits = (entry is not None and entry.answers_late) or sender.origin.allowance is not None
        if waits or len(body) >= SMALLEST_SPAN * self._max_items:
            return answer
        answer.add_done_callback(lambda answer: self._account(answer, sender))
        return _ACCEPTED

    def _account(self, answer: asyncio.Future[Response], sender: _HeadReader) -> None:
        """Count and report an error in a body that was already answered."""
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, ConsumeError):
            self._lose(error, sender)
        elif error is not None:
            self._refused("internal")

    def _lose(self, error: ConsumeError, sender: _HeadReader) -> None:
        """Count and report the loss of a body that was already answered with success."""
        if self._drops is not None and isinstance(error, RetryableError):
            self._drops.add(error, sender.user_agent)
            return
        self._refused(error.reason)
        if isinstance(error, RetryableError):
            if requests := self._lost.take():
                self._log.error("requests dropped after they were accepted", requests=requests, reason=str(error))
        else:
            self.repairs.report_refused(sender.user_agent, error)


class _HeadReader:
    """The properties of a sender that a request's head contains."""

    __slots__ = ("origin", "thrift", "user_agent")

    def __init__(self, receiver: str, head: Head) -> None:
        self.origin = head.origin(receiver)
        self.user_agent = head.headers.get("user-agent", "")
        self.thrift = head.media_type in THRIFT_TYPES


def _is_json(body: bytes, sender: _HeadReader) -> bool:
    """Return True if a body is JSON, False if it is Thrift.

    Its first byte decides, whatever its content type is.
    """
    first = body[0]
    if first in _JSON_BEGINS:
        return True
    if sender.thrift or first in _THRIFT_BEGINS:
        return False
    raise MalformedError("the body is neither JSON, which begins with { or [, nor Thrift in the binary protocol")


def _decode(body: bytes, sender: _HeadReader, max_items: int) -> Traces:
    if _is_json(body, sender):
        return from_json.decode(body, time.time_ns(), max_items)
    from otelwp_agent.codecs.jaeger import from_thrift  # noqa: PLC0415 - needed only for Thrift

    return from_thrift.decode(body, max_items)


def _steps(body: bytes, sender: _HeadReader, max_items: int) -> Generator[None, None, tuple[Traces, bytes]]:
    """Decode in steps; return the spans of a body, and the same as an OTLP request."""
    if _is_json(body, sender):
        traces = yield from from_json.decoding(body, time.time_ns(), max_items)
    else:
        traces = _decode(body, sender, max_items)
    return traces, traces.body()
