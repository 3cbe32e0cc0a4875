"""Receive spans in Zipkin's formats over HTTP: v2 as JSON and protobuf, and v1 as JSON.

The receiver is the start of a pipeline, for exporters that send to Zipkin: old PHP exporters, Brave, OpenTelemetry
SDKs. `/api/v2/spans` accepts protobuf and JSON (recognized by its first bytes, whatever its content type is);
`/api/v1/spans` accepts JSON. Invalid values (span ids of eight digits, times in other units) are repaired and counted
by kind and site; docs/topics/zipkin.md has the mapping. The answer is 202 once the pipeline has accepted the spans.

Example::

    receivers:
      zipkin:
        endpoint: 127.0.0.1:9411
        additional_endpoints: ["[::1]:9411"]
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from otelwp_agent.codecs.repairs import REPAIRS, Repairs
from otelwp_agent.codecs.zipkin import from_json
from otelwp_agent.component import Context, Factory, Kind, Reads, Receiver, ReceiverConfig, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport import overload
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.decoding import Decoding, is_long_json
from otelwp_agent.transport.http_messages import PROTOBUF, Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Mapping

    from otelwp_agent.codecs.zipkin.assembly import Assembly
    from otelwp_agent.codecs.zipkin.receiving import Decoder

V2_PATH, V1_PATH = "/api/v2/spans", "/api/v1/spans"
METHODS = ("POST", "PUT")

_ACCEPTED = Response(202)
_GZIP = b"\x1f\x8b"
_SPANS_FIELD = b"\x0a"
"""First byte of a `ListOfSpans`. It is also a line feed, so only the content type distinguishes it from JSON."""
_THRIFT = "thrift"
_THRIFT_HINT = (
    "Zipkin's Thrift is not supported: configure the sender to write JSON (application/json, here or on "
    "/api/v2/spans) or protobuf (application/x-protobuf, on /api/v2/spans)"
)


class ZipkinHttp(blocks.HttpReceiver):
    """Zipkin's formats over HTTP/1.1."""

    endpoint: Endpoint = Endpoint("127.0.0.1:9411")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""


class ZipkinProtocols(blocks.Block):
    """Protocols to listen with."""

    http: ZipkinHttp
    """Zipkin's formats over HTTP/1.1, on 127.0.0.1:9411 by default."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data


class Config(ReceiverConfig, ZipkinHttp):
    """Settings of the Zipkin receiver.

    The settings of the server are here, or below `protocols.http`, which then take precedence.
    """

    protocols: ZipkinProtocols | None = None
    """The settings of the server in the Collector's newer form."""
    parse_string_tags: bool = False
    """Convert tags that look like integers, floats or booleans; in Zipkin's formats every tag is a string."""

    @model_validator(mode="after")
    def _authentication_has_an_effect(self) -> Config:
        if self.protocols is not None and (self.auth is not None or self.middlewares):
            raise ValueError(
                "`auth` and `middlewares` have no effect beside `protocols`: write them below `protocols.http`"
            )
        return self


class ZipkinReceiver(Receiver):
    """Listens for requests with Zipkin's spans."""

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(context)
        settings = config.protocols.http if config.protocols is not None else config
        receiver = str(context.id)
        self._parse_string_tags = config.parse_string_tags
        self._limit = settings.max_request_body_size
        self._max_items = config.max_items_per_request
        self._decoding: Decoding[Response] = Decoding(context.in_flight, context.log)
        self._refused = refusals(context.registry, receiver, "http")
        self._repairs = Repairs(receiver, context.log, context.registry)
        self._server = HttpServer(
            settings,
            {path: Route(self._handle, METHODS, self._admit, same_origin=True) for path in (V2_PATH, V1_PATH)},
            name=f"{context.kind.value}/{context.id}",
            log=context.log,
            on_refused=self._refused,
            drops=self.drops.when(settings.on_overload),
            in_flight=context.in_flight,
            gate=context.gate(settings),
        )

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        server = self._server
        await server.start()
        also = {"also": server.also} if server.also else {}
        self.context.log.info("receiver listening", transport="http", endpoint=server.address, port=server.port, **also)

    async def shutdown(self) -> None:
        """Stop listening, and answer the requests that have begun to arrive."""
        await self._server.shutdown()
        await self._decoding.drain()

    def refresh(self) -> None:
        """Read the certificates again."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening address."""
        return {"http": self._server.address} if self._server.listening else {}

    def _admit(self) -> None:
        entry = self.next.get(Signal.TRACES)
        if entry is not None:
            entry.admit()

    def _handle(self, request: Request) -> Response | asyncio.Future[Response]:
        head = request.head
        sender = head.memo
        if sender is None:
            sender = head.memo = _Sender(str(self.context.id), head)
        if sender.refusal is not None:
            self._refused("unsupported_media_type")
            return sender.refusal  # type: ignore[no-any-return]  # only this class sets the memo
        if self.next.get(Signal.TRACES) is None:
            message = f"no pipeline accepts traces from the receiver {self.context.id}; add it to service.pipelines"
            return text_error(404, message)
        body = request.body
        if body.startswith(_GZIP) and not head.encoding:
            body = decompress("gzip", body, self._limit)
        if not body:
            raise MalformedError(
                "the body is empty: PHP's json_encode returns nothing for text that is not UTF-8; encode with "
                "JSON_INVALID_UTF8_SUBSTITUTE",
                reason="empty",
            )
        steps = _assembling(
            sender.decoding(body)(
                body, time.time_ns(), parse_string_tags=self._parse_string_tags, max_items=self._max_items
            )
        )
        is_long = is_long_json(body)
        if not is_long:
            try:
                next(steps)
            except StopIteration as stop:
                return self._hand_over(stop.value, sender)
        return self._decoding.run(steps, len(body), lambda decoded: self._hand_over(decoded, sender), in_thread=is_long)

    def _hand_over(self, decoded: tuple[Assembly, bytes], sender: _Sender) -> Response | asyncio.Future[Response]:
        """Forward the spans, and count the repairs; return the answer, or its future."""
        traces, body = decoded
        items, entry = traces.spans, self.next.get(Signal.TRACES)
        answer = None
        if items and entry is not None:
            batch = Batch(Signal.TRACES, body, items, sender.origin, ((Receipt(items), items),))
            answer = entry.consume(batch, _ACCEPTED)
        if traces.repairs:
            self._repairs.add(traces, sender.user_agent)
        return answer or _ACCEPTED


def _assembling(steps: Generator[None, None, Decoder]) -> Generator[None, None, tuple[Assembly, bytes]]:
    """Return the spans of a body, and the same as an OTLP request."""
    traces = (yield from steps).traces
    return traces, traces.body()


class _Sender:
    """The properties of a sender that a request's head contains, and the format of its bodies."""

    __slots__ = ("is_protobuf", "is_v1", "origin", "refusal", "user_agent")

    def __init__(self, receiver: str, head: Head) -> None:
        self.origin = head.origin(receiver)
        self.user_agent = head.headers.get("user-agent", "")
        self.is_v1 = head.path == V1_PATH
        self.is_protobuf = head.media_type == PROTOBUF
        self.refusal = None
        if _THRIFT in head.media_type:
            self.refusal = text_error(415, _THRIFT_HINT)
        elif self.is_v1 and self.is_protobuf:
            self.refusal = text_error(415, f"v1 has no protobuf: post it to {V2_PATH}")

    def decoding(self, body: bytes) -> Callable[..., Generator[None, None, Decoder]]:
        """Return the decoder for a body of this sender."""
        if self.is_v1:
            from otelwp_agent.codecs.zipkin import from_v1  # noqa: PLC0415 - needed only for v1

            return from_v1.decoding
        if self.is_protobuf and body.startswith(_SPANS_FIELD):
            from otelwp_agent.codecs.zipkin import from_proto  # noqa: PLC0415 - needed only for protobuf

            return from_proto.decoding
        return from_json.decoding


FACTORY = Factory(
    Kind.RECEIVER,
    "zipkin",
    Config,
    ZipkinReceiver,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
    instruments=(REFUSED_REQUESTS, REPAIRS, *overload.INSTRUMENTS),
)
