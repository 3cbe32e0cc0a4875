"""Receive OTLP over gRPC and HTTP: traces, metrics and logs, as protobuf or JSON.

The receiver is the start of a pipeline. It checks the bodies (`validation`) and forwards their bytes unchanged; JSON is
converted to protobuf once, here. The path of traces accepts Jaeger's JSON (`{"data": […]}`) too. A request is answered
when the pipeline has accepted it. A request that exceeds the capacity of the pipeline is refused, so that the sender
keeps it and retries (429 with `Retry-After`, RESOURCE_EXHAUSTED with `RetryInfo`).

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

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from otelwp_agent.codecs.json_bodies import JsonBodies
from otelwp_agent.codecs.repairs import REPAIRS
from otelwp_agent.component import (
    Carries,
    Context,
    Factory,
    Kind,
    NeedsPlan,
    Reads,
    Receiver,
    ReceiverConfig,
    Stability,
    Tier,
)
from otelwp_agent.config import blocks
from otelwp_agent.errors import ConsumeError, PermanentError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.checking import checker
from otelwp_agent.model.otlp_response import partial_success
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.model.stepwise_checking import StepwiseChecker
from otelwp_agent.sealing.metrics import DUPLICATES, ENVELOPES
from otelwp_agent.transport import otlp_answers, overload
from otelwp_agent.transport.decoding import Decoding
from otelwp_agent.transport.hints import limit_hints, plan_hints
from otelwp_agent.transport.http_messages import JSON, PROTOBUF, Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.otlp_answers import AGAIN, AGAIN_JSON, KEY_HEADER, Form, OtlpRoute, OtlpSender
from otelwp_agent.transport.otlp_posting import SEALED
from otelwp_agent.transport.otlp_settings import OtlpHttp, OtlpProtocols  # noqa: TC001 - pydantic reads them
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from otelwp_agent.component.bases import ReceiverSink
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.model.message import Message
    from otelwp_agent.sealing.deduplication import Deduplicator
    from otelwp_agent.sealing.receiving import SealedBodies
    from otelwp_agent.transport.gate import Caller
    from otelwp_agent.transport.grpc_owner import GrpcHandler
    from otelwp_agent.transport.grpc_server import GrpcServer

    Answer = Response | asyncio.Future[Response]

_METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
SEALED_NEEDS = NeedsPlan(Tier.ENTERPRISE, "encrypted requests", instead="send without the processor `encryption`")


class Config(ReceiverConfig):
    """Settings of the OTLP receiver."""

    protocols: OtlpProtocols
    """Protocols to listen with."""
    validation: Literal["keys", "full"] = Field("keys")
    """How thoroughly a body is checked before it is accepted.

    `keys`: every message down to the span, data point and log record must be valid. `full`: everything inside them too
    (for untrusted senders; costs 10 to 20 times as much, 4 ms for 1 MiB). Bodies from 4 MiB on, with `full`
    from 512 KiB on, are checked in a thread, so that other requests do not wait for them.
    """
    sealed: Annotated[blocks.Sealed | None, SEALED_NEEDS] = None
    """Accept sealed envelopes over HTTP, as the exporter `managed` sends them. Without it, they are refused. Tenants
    with a plan need the tier `enterprise`."""
    deduplication: blocks.Deduplication | None = None
    """Process requests over HTTP once that have the same `Idempotency-Key`. With `sealed`, it is always enabled."""

    @model_validator(mode="after")
    def _remembers_what_is_fresh(self) -> Config:
        fresh = 0.0 if self.sealed is None else self.sealed.freshness
        if fresh > self.remembered.remember:
            raise ValueError(
                "deduplication.remember is shorter than sealed.freshness: make it at least as long, so that an "
                "accepted envelope is known as long as it is fresh"
            )
        return self

    @property
    def remembered(self) -> blocks.Deduplication:
        """How requests that are sent again are recognized."""
        return self.deduplication or blocks.Deduplication()

    def encodes(self) -> Carries:
        """Return that bodies may be encrypted, if envelopes are forwarded."""
        return Carries.ENCODED if self.sealed is not None and self.sealed.mode == "forward" else Carries.PLAIN


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
        name = str(context.id)
        self._deduplicator: Deduplicator | None = None
        if config.sealed is not None or config.deduplication is not None:
            from otelwp_agent.sealing.deduplication import Deduplicator  # noqa: PLC0415 - only if it is configured

            self._deduplicator = Deduplicator(config.remembered, context.messages, name, context.registry)
        self._sealed: SealedBodies | None = None
        if config.sealed is not None and config.protocols.http is not None and self._deduplicator is not None:
            from otelwp_agent.sealing.receiving import SealedBodies  # noqa: PLC0415 - only if it is configured

            self._sealed = SealedBodies(
                config.sealed,
                self._deduplicator,
                name=self.name,
                receiver=name,
                max_items=self._max_items,
                max_bytes=config.protocols.http.max_request_body_size,
                decoding=self._decoding,
                registry=context.registry,
                log=context.log,
            )
        self._json = JsonBodies(str(context.id), self._max_items, context.log, context.registry)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        try:
            if self._sealed is not None:
                self._sealed.start()
            if self._protocols.http is not None:
                await self._start_http(self._protocols.http)
            if self._protocols.grpc is not None:
                await self._start_grpc(self._protocols.grpc)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop listening, and answer the requests that have begun to arrive."""
        if self._sealed is not None:
            self._sealed.stop()
        http, self._http = self._http, None
        grpc, self._grpc = self._grpc, None
        if http is not None:
            await http.shutdown()
        await self._decoding.drain()
        await self._messages.drain()
        if grpc is not None:
            await grpc.shutdown()

    def refresh(self) -> None:
        """Read the certificates and keys again."""
        if self._sealed is not None:
            self._sealed.refresh()
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
            plain, origin, ok = memo[:3]
            body = request.body
            if not plain or len(body) >= stepwise.large:
                return self._handle_other(route, deliver, request.head, body, memo)
            return deliver(body, None, request.head, origin, ok)

        def deliver(  # noqa: PLR0913, PLR0917 - a request and its answer
            body: bytes, items: int | None, head: Head, origin: Origin, ok: Response, message: Message | None = None
        ) -> Answer:
            """Check the body, unless the number of its items is known, and forward it."""
            if signal not in self.next:
                return self._not_wired(signal)
            items = check(body) if items is None else items
            if not items:
                return ok
            batch = Batch(signal, body, items, origin, ((Receipt(items), items),))
            batch.message = message
            return forward(batch, head, ok)

        def forward(batch: Batch, head: Head, ok: Response) -> Answer:
            answer = self.next[signal].consume(batch, ok, lambda lost, why: drop_renderer(head, lost, why))
            return ok if answer is None else answer

        def admit() -> None:
            entry = self.next.get(signal)
            if entry is not None:
                entry.admit()

        drop_renderer = otlp_answers.drop_renderer(signal)
        route = OtlpRoute(signal, check, stepwise, forward, self._refusals("http"))
        return Route(handle, ("POST",), admit, otlp_answers.render_error, drop_renderer)

    def _handle_other(
        self, route: OtlpRoute, deliver: Callable[..., Answer], head: Head, body: bytes, sender: OtlpSender
    ) -> Answer:
        """Handle a body that is JSON, sealed or large, or that has an id of its sender."""
        _, origin, ok, form, key = sender
        if ok.status != HTTPStatus.OK:
            route.count("unsupported_media_type")
            return ok
        if route.signal not in self.next:
            return self._not_wired(route.signal)
        if form is Form.SEALED and self._sealed is not None:
            self.require_plan(origin.tenant, SEALED_NEEDS)
            return self._sealed.read(route, body, head, origin, (self._hinted(head), AGAIN))
        json_head = head if form is Form.JSON else None
        if not key or self._deduplicator is None:
            known = partial(deliver, head=head, origin=origin, ok=ok)
            return self._read(route.signal, body, route.stepwise, known, head=json_head)
        message = self._deduplicator.keyed(origin.tenant, key)
        ok = self._hinted(head, as_json=json_head is not None)
        known = partial(deliver, head=head, origin=origin, ok=ok, message=message)
        read = partial(self._read, route.signal, body, route.stepwise, known, head=json_head)
        return self._deduplicator.process(message, read, AGAIN if json_head is None else AGAIN_JSON)

    def _read(
        self,
        signal: Signal,
        body: bytes,
        stepwise: StepwiseChecker,
        deliver: Callable[[bytes, int | None], Answer],
        *,
        head: Head | None,
    ) -> Answer:
        """Deliver the body, converted if it is JSON, with this head; what takes long is done in a thread."""
        if head is None:
            if signal not in self.next:
                return self._not_wired(signal)
            return self._decoding.check(stepwise, body, lambda items: deliver(body, items))
        return self._json.read(
            signal,
            body,
            user_agent=head.headers.get("user-agent", ""),
            stepwise=stepwise,
            decoding=self._decoding,
            deliver=deliver,
        )

    def _read_head(self, head: Head) -> OtlpSender:
        """Return what the head says about its requests, and the answer to a valid one."""
        origin = head.origin(str(self.context.id))
        key = "" if self._deduplicator is None else head.headers.get(KEY_HEADER, "").strip()
        hints = plan_hints(head.client)
        if head.media_type == PROTOBUF:
            return OtlpSender(not key, origin, otlp_answers.accepted(as_json=False, headers=hints), Form.PROTOBUF, key)
        if head.media_type == JSON:
            return OtlpSender(
                plain=False,
                origin=origin,
                ok=otlp_answers.accepted(as_json=True, headers=hints),
                form=Form.JSON,
                key=key,
            )
        if self._sealed is not None and head.media_type == SEALED:
            return OtlpSender(plain=False, origin=origin, ok=otlp_answers.accepted(as_json=False), form=Form.SEALED)
        got = head.media_type or "none"
        refusal = text_error(415, f"the content type is {got}; accepted: {PROTOBUF} and {JSON}")
        return OtlpSender(plain=False, origin=origin, ok=refusal)

    def _hinted(self, head: Head, *, as_json: bool = False) -> Response:
        """Return the answer to a valid request, with all hints."""
        hints = (*plan_hints(head.client), *limit_hints(head.allowance))
        return otlp_answers.accepted(as_json=as_json, headers=hints)

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


FACTORY = Factory(
    Kind.RECEIVER,
    "otlp",
    Config,
    OtlpReceiver,
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
    instruments=(REFUSED_REQUESTS, REPAIRS, DUPLICATES, ENVELOPES, *overload.INSTRUMENTS),
)
