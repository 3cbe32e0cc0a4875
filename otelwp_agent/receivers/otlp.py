"""Receive OTLP over gRPC and HTTP: traces, metrics and logs, as protobuf or JSON.

The receiver is the start of a pipeline. It checks the bodies (`validation`) and forwards their bytes unchanged; JSON is
converted to protobuf once, here. A request is answered when the pipeline has accepted it. A request that exceeds the
capacity of the pipeline is refused, so that the sender keeps it and retries (429 with `Retry-After`, RESOURCE_EXHAUSTED
with `RetryInfo`).

Example::

    receivers:
      otlp:
        protocols:
          grpc:
            endpoint: 127.0.0.1:4317
          http:
            endpoint: 127.0.0.1:4318
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import Context, Factory, Kind, Reads, Receiver, ReceiverConfig, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Ignored
from otelwp_agent.errors import ConsumeError, PermanentError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.checking import checker
from otelwp_agent.model.otlp_response import partial_success
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker
from otelwp_agent.transport import overload
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.decoding import Decoding, is_long_json
from otelwp_agent.transport.http_messages import JSON, PROTOBUF, Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from otelwp_agent.component.bases import ReceiverSink
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.decoding import Steps
    from otelwp_agent.transport.gate import Caller
    from otelwp_agent.transport.grpc_owner import GrpcHandler
    from otelwp_agent.transport.grpc_server import GrpcServer
    from otelwp_agent.transport.http_messages import DropRenderer

    Answer = Response | asyncio.Future[Response]

_PATH = re.compile(r"/?[^\s?#/:][^\s?#:]*|/")

_METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


def _is_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        message = f"{value!r} is not a path: write one like `/v1/traces`, without a host, a query or spaces"
        raise ValueError(message)
    return value


UrlPath = Annotated[str, AfterValidator(_is_path)]


class OtlpHttp(blocks.HttpReceiver):
    """OTLP over HTTP/1.1."""

    traces_url_path: UrlPath = "/v1/traces"
    """Path for traces."""
    metrics_url_path: UrlPath = "/v1/metrics"
    """Path for metrics."""
    logs_url_path: UrlPath = "/v1/logs"
    """Path for logs."""
    profiles_url_path: Annotated[UrlPath, Ignored("profiles are not supported")] = "/v1development/profiles"
    """Accepted for compatibility with the Collector, without effect: profiles are not supported."""

    @property
    def paths(self) -> dict[str, Signal]:
        """The signal of each path. A missing first slash is added."""
        pairs = (
            (self.traces_url_path, Signal.TRACES),
            (self.metrics_url_path, Signal.METRICS),
            (self.logs_url_path, Signal.LOGS),
        )
        return {path if path.startswith("/") else f"/{path}": signal for path, signal in pairs}

    @model_validator(mode="after")
    def _distinct_paths(self) -> OtlpHttp:
        if len(self.paths) < len(Signal):
            message = "two signals have the same path: give each signal a different path"
            raise ValueError(message)
        return self


class Protocols(blocks.Block):
    """Protocols to listen with. A protocol with an empty value is enabled with its defaults."""

    grpc: blocks.GrpcServer | None = None
    """OTLP over gRPC, on 127.0.0.1:4317 by default."""
    http: OtlpHttp | None = None
    """OTLP over HTTP/1.1, on 127.0.0.1:4318 by default."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _at_least_one(self) -> Protocols:
        if self.grpc is None and self.http is None:
            message = "name at least one protocol: `grpc:` or `http:`"
            raise ValueError(message)
        return self


class Config(ReceiverConfig):
    """Settings of the OTLP receiver."""

    protocols: Protocols
    """Protocols to listen with."""
    validation: Literal["keys", "full"] = Field("keys")
    """How thoroughly a body is checked before it is accepted.

    `keys`: every message down to the span, data point and log record must be valid. `full`: everything inside them too
    (for untrusted senders; costs 10 to 20 times as much, 4 ms for 1 MiB). Bodies from 4 MiB on, with `full`
    from 512 KiB on, are checked in a thread, so that other requests do not wait for them.
    """


class OtlpReceiver(Receiver):
    """Listens for OTLP requests."""

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(context)
        self.name = f"{context.kind.value}/{context.id}"
        self._protocols = config.protocols
        self._max_items = config.max_items_per_request
        self._full = config.validation == "full"
        self._decoding: Decoding[Response] = Decoding(context.in_flight, context.log)
        self._messages: Decoding[bytes] = Decoding(context.in_flight, context.log)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        try:
            if self._protocols.http is not None:
                await self._start_http(self._protocols.http)
            if self._protocols.grpc is not None:
                await self._start_grpc(self._protocols.grpc)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop listening, and answer the requests that have begun to arrive."""
        http, self._http = self._http, None
        grpc, self._grpc = self._grpc, None
        if http is not None:
            await http.shutdown()
        await self._decoding.drain()
        await self._messages.drain()
        if grpc is not None:
            await grpc.shutdown()

    def refresh(self) -> None:
        """Read the certificates again."""
        for server in (self._http, self._grpc):
            if server is not None:
                server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening addresses: `http` as a URL, `grpc` as an address."""
        endpoints = {}
        if self._grpc is not None:
            endpoints["grpc"] = self._grpc.address
        if self._http is not None:
            endpoints["http"] = self._http.address
        return endpoints

    async def _start_http(self, settings: OtlpHttp) -> None:
        routes = {path: self._route(signal) for path, signal in settings.paths.items()}
        server = HttpServer(
            settings,
            routes,
            name=self.name,
            log=self.context.log,
            on_refused=self._refusals("http"),
            drops=self.drops.when(settings.on_overload),
            in_flight=self.context.in_flight,
            gate=self.context.gate(settings),
        )
        await server.start()
        self._http = server
        also = {"also": server.also} if server.also else {}
        self.context.log.info("receiver listening", transport="http", endpoint=server.address, port=server.port, **also)

    async def _start_grpc(self, settings: blocks.GrpcServer) -> None:
        from otelwp_agent.transport.grpc_server import GrpcServer  # noqa: PLC0415 - needed only with gRPC

        methods = {method: self._grpc_handler(signal) for signal, method in _METHODS.items()}
        server = GrpcServer(
            settings,
            methods,
            name=self.name,
            log=self.context.log,
            in_flight=self.context.in_flight,
            on_refused=self._refusals("grpc"),
            gate=self.context.gate(settings),
        )
        await server.start()
        self._grpc = server
        self.context.log.info("receiver listening", transport="grpc", endpoint=server.address, port=server.port)

    def _refusals(self, transport: str) -> Callable[[str], None]:
        return refusals(self.context.registry, str(self.context.id), transport)

    def _route(self, signal: Signal) -> Route:
        """Return the route for `signal`. This is the hot path of the whole agent."""
        check = checker(signal, self._max_items, full=self._full)
        stepwise = StepwiseChecker(signal, self._max_items, full=self._full)

        def handle(request: Request) -> Answer:
            memo = request.head.memo
            if memo is None:
                memo = request.head.memo = self._read_head(request.head)
            is_json, origin, ok = memo
            if ok.status != 200:  # noqa: PLR2004 - OK
                count("unsupported_media_type")
                return ok  # type: ignore[no-any-return]  # only this function sets the memo
            body = request.body
            if is_json or len(body) >= stepwise.large:
                known = partial(deliver, head=request.head, origin=origin, ok=ok)
                return self._read(signal, body, stepwise, known, is_json=is_json)
            return deliver(body, None, request.head, origin, ok)

        def deliver(body: bytes, items: int | None, head: Head, origin: Origin, ok: Response) -> Answer:
            """Check the body, unless the number of its items is known, and forward it."""
            entry = self.next.get(signal)
            if entry is None:
                return self._not_wired(signal)
            items = check(body) if items is None else items
            if not items:
                return ok
            batch = Batch(signal, body, items, origin, ((Receipt(items), items),))
            return entry.consume(batch, ok, lambda lost, why: drop_renderer(head, lost, why)) or ok

        def admit() -> None:
            entry = self.next.get(signal)
            if entry is not None:
                entry.admit()

        count = self._refusals("http")
        drop_renderer = _drop_renderer(signal)
        return Route(handle, ("POST",), admit, _render_error, drop_renderer)

    def _read(
        self,
        signal: Signal,
        body: bytes,
        stepwise: StepwiseChecker,
        deliver: Callable[[bytes, int | None], Answer],
        *,
        is_json: bool,
    ) -> Answer:
        """Convert JSON to protobuf and deliver the body; what takes long is converted and checked in a thread."""
        if not is_json:
            if signal not in self.next:
                return self._not_wired(signal)
            return self._decoding.check(stepwise, body, lambda items: deliver(body, items))
        from otelwp_agent.codecs.otlp_json import decode  # noqa: PLC0415 - the full messages are needed only for JSON

        if not is_long_json(body):
            return deliver(decode(signal, body, self._max_items), None)

        def steps() -> Steps:
            converted = decode(signal, body, self._max_items)
            yield
            items = (yield from stepwise.steps(converted)) if len(converted) >= stepwise.large else None
            return converted, items

        return self._decoding.run(steps(), len(body), lambda decoded: deliver(*decoded), in_thread=True)

    def _read_head(self, head: Head) -> tuple[bool, Origin, Response]:
        """Return whether the body is JSON, the origin of the request, and the answer to a valid request."""
        origin = head.origin(str(self.context.id))
        if head.media_type == PROTOBUF:
            return False, origin, _OK_PROTOBUF
        if head.media_type == JSON:
            return True, origin, _OK_JSON
        got = head.media_type or "none"
        return False, origin, text_error(415, f"the content type is {got}; accepted: {PROTOBUF} and {JSON}")

    def _not_wired(self, signal: Signal) -> Response:
        return text_error(
            404, f"no pipeline accepts {signal.value} from the receiver {self.context.id}; add it to service.pipelines"
        )

    def _grpc_handler(self, signal: Signal) -> GrpcHandler:
        check = checker(signal, self._max_items, full=self._full)
        stepwise = StepwiseChecker(signal, self._max_items, full=self._full)
        receiver, count = str(self.context.id), self._refusals("grpc")

        def handle(message: bytes, caller: Caller) -> bytes | asyncio.Future[bytes]:
            try:
                wired().admit()
                if len(message) < stepwise.large:
                    return deliver(message, check(message), caller)
                answer = self._messages.check(stepwise, message, lambda items: deliver(message, items, caller))
            except ConsumeError as error:
                count(error.reason)
                raise
            answer.add_done_callback(count_refusal)
            return answer

        def wired() -> ReceiverSink:
            entry = self.next.get(signal)
            if entry is None:
                raise PermanentError(f"no pipeline accepts {signal.value} from the receiver {receiver}")
            return entry

        def deliver(message: bytes, items: int, caller: Caller) -> bytes | asyncio.Future[bytes]:
            if not items:
                return b""
            batch = Batch(signal, message, items, caller.origin(receiver), ((Receipt(items), items),))
            return wired().consume(batch, b"", partial_success) or b""

        def count_refusal(answer: asyncio.Future[bytes]) -> None:
            if not answer.cancelled() and isinstance(error := answer.exception(), ConsumeError):
                count(error.reason)

        return handle


_OK_PROTOBUF = Response(200, b"", PROTOBUF)
_OK_JSON = Response(200, b"{}", JSON)


def _render_error(head: Head, status: int, error: ConsumeError) -> Response:
    """Answer with a `google.rpc.Status` in the request's encoding (OTLP 1.9, "OTLP/HTTP Response")."""
    message = statuses.status_message(error)
    headers = statuses.response_headers(error)
    if head.media_type == JSON:
        from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - only for errors as JSON

        return Response(status, MessageToJson(message, indent=None).encode(), JSON, headers)
    return Response(status, message.SerializeToString(), PROTOBUF, headers)


_REJECTED = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}


def _drop_renderer(signal: Signal) -> DropRenderer:
    """Return a function that renders the answer to a dropped request: a success that rejects all items.

    This is OTLP 1.9, "Partial Success". If the items were not counted, only the message is set: a rejected number of 0
    means a warning.
    """

    def render(head: Head, items: int, message: str) -> Response:
        if head.media_type == JSON:
            rejected = {_REJECTED[signal]: str(items)} if items else {}
            return Response(200, orjson.dumps({"partialSuccess": {**rejected, "errorMessage": message}}), JSON)
        return Response(200, partial_success(items, message), PROTOBUF)

    return render


FACTORY = Factory(
    Kind.RECEIVER,
    "otlp",
    Config,
    OtlpReceiver,
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
    instruments=(REFUSED_REQUESTS, *overload.INSTRUMENTS),
)
