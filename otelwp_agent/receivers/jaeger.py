"""Receive spans from Jaeger's clients: protobuf over gRPC, Thrift (and JSON) over HTTP.

The receiver is the start of a pipeline, for older SDKs and exporters that send to a Jaeger collector: `PostSpans` on
port 14250, `/api/traces` on port 14268. The path on 14268 also accepts JSON, recognized by its first bytes, with all
the repairs of the receiver `jaeger_json`: only one of the two receivers is needed for that port.

Example::

    receivers:
      jaeger:
        protocols:
          grpc:
            endpoint: 127.0.0.1:14250
          thrift_http:
            endpoint: 127.0.0.1:14268
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import model_validator

from otelwp_agent.codecs.jaeger import http as jaeger_http
from otelwp_agent.codecs.repairs import Repairs
from otelwp_agent.component import Context, Factory, Kind, Reads, Receiver, ReceiverConfig, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint, Refused
from otelwp_agent.errors import ConsumeError, PermanentError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport import overload
from otelwp_agent.transport.decoding import Decoding, in_one_step
from otelwp_agent.transport.refusals import refusals

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from otelwp_agent.codecs.jaeger.receiving import Traces
    from otelwp_agent.transport.gate import Caller
    from otelwp_agent.transport.grpc_server import GrpcServer

POST_SPANS = "/jaeger.api_v2.CollectorService/PostSpans"

OFF_LOOP = 256 * 1024
"""Size in bytes from which on a message is decoded in a thread: 4 ms for typical spans, 70 ms for empty ones."""

_UDP = Refused(
    "Thrift over UDP is not supported (its clients are obsolete): send OTLP, or from PHP use the receiver "
    "`datagram`, and remove this"
)
_SAMPLING = Refused("sampling strategies are not served by a receiver: remove `remote_sampling`")


class Grpc(blocks.GrpcServer):
    """Jaeger's protobuf over gRPC."""

    endpoint: Endpoint = Endpoint("127.0.0.1:14250")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""


class ThriftHttp(blocks.HttpReceiver):
    """Thrift or JSON over HTTP."""

    endpoint: Endpoint = Endpoint("127.0.0.1:14268")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""


class JaegerProtocols(blocks.Block):
    """Protocols to listen with. A protocol with an empty value is enabled with its defaults."""

    grpc: Grpc | None = None
    """Protobuf over gRPC, on 127.0.0.1:14250 by default."""
    thrift_http: ThriftHttp | None = None
    """Thrift and JSON over HTTP, on 127.0.0.1:14268 by default."""
    thrift_compact: Annotated[None, _UDP] = None
    """Refused: Thrift over UDP is not supported."""
    thrift_binary: Annotated[None, _UDP] = None
    """Refused: Thrift over UDP is not supported."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, data: Any) -> Any:  # noqa: ANN401 - any YAML value
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _at_least_one(self) -> JaegerProtocols:
        if self.grpc is None and self.thrift_http is None:
            message = "name at least one protocol: `grpc:` or `thrift_http:`"
            raise ValueError(message)
        return self


class Config(ReceiverConfig):
    """Settings of the Jaeger receiver."""

    protocols: JaegerProtocols
    """Protocols to listen with."""
    remote_sampling: Annotated[None, _SAMPLING] = None
    """Refused: sampling strategies are not served by this receiver."""


class JaegerReceiver(Receiver):
    """Listens for Jaeger's clients."""

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(context)
        self.name = f"{context.kind.value}/{context.id}"
        self._settings = config.protocols
        self._max_items = config.max_items_per_request
        self._decoding: Decoding[bytes] = Decoding(context.in_flight, context.log)
        self._grpc: GrpcServer | None = None
        self._http: jaeger_http.JaegerHttp | None = None
        self._repairs = Repairs(str(context.id), context.log, context.registry)

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        try:
            if self._settings.thrift_http is not None:
                await self._start_http(self._settings.thrift_http)
            if self._settings.grpc is not None:
                await self._start_grpc(self._settings.grpc)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop listening, and forward the bodies that were answered but not decoded yet."""
        http, self._http = self._http, None
        grpc, self._grpc = self._grpc, None
        if http is not None:
            await http.shutdown()
        if grpc is not None:
            await grpc.shutdown()
        await self._decoding.drain()

    def refresh(self) -> None:
        """Read the certificates again."""
        if self._http is not None:
            self._http.server.reload_tls()
        if self._grpc is not None:
            self._grpc.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening addresses by protocol."""
        endpoints = {}
        if self._grpc is not None:
            endpoints["grpc"] = self._grpc.address
        if self._http is not None:
            endpoints["thrift_http"] = self._http.server.address
        return endpoints

    async def _start_http(self, settings: ThriftHttp) -> None:
        http = jaeger_http.JaegerHttp(
            settings,
            lambda: self.next.get(Signal.TRACES),
            receiver=str(self.context.id),
            name=self.name,
            log=self.context.log,
            registry=self.context.registry,
            clock=self.context.clock,
            drops=self.drops,
            in_flight=self.context.in_flight,
            gate=self.context.gate(settings),
            max_items=self._max_items,
        )
        await http.start()
        self._http = http

    async def _start_grpc(self, settings: Grpc) -> None:
        from otelwp_agent.transport.grpc_server import GrpcServer  # noqa: PLC0415 - needed only with gRPC

        context = self.context
        server = GrpcServer(
            settings,
            {POST_SPANS: self.post_spans},
            name=self.name,
            log=context.log,
            in_flight=context.in_flight,
            on_refused=refusals(context.registry, str(context.id), "grpc"),
            gate=context.gate(settings),
        )
        await server.start()
        self._grpc = server
        self.context.log.info("receiver listening", transport="grpc", endpoint=server.address, port=server.port)

    def post_spans(self, message: bytes, caller: Caller) -> bytes | asyncio.Future[bytes]:
        """Process a `PostSpansRequest`; the answer is an empty message."""
        entry = self.next.get(Signal.TRACES)
        try:
            if entry is not None:
                entry.admit()
            if len(message) < OFF_LOOP:
                return self._deliver(_decode(message, self._max_items), caller)
            steps = in_one_step(_decode, message, self._max_items)
            answer = self._decoding.run(
                steps, len(message), lambda decoded: self._deliver(decoded, caller), in_thread=True
            )
        except ConsumeError as error:
            self._count(error)
            raise
        answer.add_done_callback(lambda answer: self._count(None if answer.cancelled() else answer.exception()))
        return answer

    def _deliver(self, decoded: tuple[Traces, bytes], caller: Caller) -> bytes | asyncio.Future[bytes]:
        """Forward the spans of a message; return the answer, or its future."""
        receiver, entry = str(self.context.id), self.next.get(Signal.TRACES)
        if entry is None:
            raise PermanentError(f"no pipeline accepts traces from the receiver {receiver}")
        traces, body = decoded
        items, answer = traces.spans, None
        if items:
            batch = Batch(Signal.TRACES, body, items, caller.origin(receiver), ((Receipt(items), items),))
            answer = entry.consume(batch, b"")
        if traces.repairs:
            self._repairs.add(traces)
        return answer or b""

    def _count(self, error: BaseException | None) -> None:
        """Count a refusal, if `error` is one."""
        if isinstance(error, ConsumeError):
            refusals(self.context.registry, str(self.context.id), "grpc")(error.reason)


def _decode(message: bytes, max_items: int) -> tuple[Traces, bytes]:
    """Return the spans of a message, and the same as an OTLP request."""
    from otelwp_agent.codecs.jaeger import from_proto  # noqa: PLC0415 - needed only with gRPC

    traces = from_proto.decode(message, max_items)
    return traces, traces.body()


FACTORY = Factory(
    Kind.RECEIVER,
    "jaeger",
    Config,
    JaegerReceiver,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.FULL,
    instruments=(*jaeger_http.INSTRUMENTS, *overload.INSTRUMENTS),
)
