"""Receive traces in datagrams, from senders that must not wait at all: a page of PHP writes one and goes on.

It stands at the beginning of a pipeline, on a unix socket or on loopback UDP. Each datagram holds one OTLP request of
traces, as protobuf or as JSON, or what the `jaeger_json` receiver takes; any of them also gzipped. Its first bytes
tell which. Nobody is answered: what is lost is counted by reason, and logged once a minute. Datagrams are neither
encrypted nor acknowledged, and UDP ones come from anybody who reaches the port: listen on this host alone.

Example::

    receivers:
      datagram:
        endpoint: 127.0.0.1:4319
      datagram/unix:
        endpoint: unix:///run/otelwp/datagram.sock
        unix_mode: "0660"
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from otelwp_agent.codecs.mending import MENDED, Mended
from otelwp_agent.component import ComponentConfig, Context, Factory, Kind, Reads, Receiver, Stability, Tier
from otelwp_agent.config.blocks import Listening  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import ByteSize, Endpoint
from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError
from otelwp_agent.model import projections
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.transport import overload
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.datagram import DatagramSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIVED = Instrument("otelwp_receiver_datagrams", "Datagrams that arrived.", labels=("receiver", "transport"))
LOST = Instrument(
    "otelwp_receiver_lost_datagrams",
    "Datagrams that were lost, by reason: too_large, empty, malformed, internal, …; no_room where the kernel had none.",
    labels=("receiver", "transport", "reason"),
)

UNIX_LIMIT = 208 * 1024
"""The largest message that Linux lets through a unix socket without a privileged sender (net.core.wmem_max)."""
UDP_LIMIT = 64 * 1024
LOG_EVERY = 60.0
"""Seconds between two lines about what was lost for one reason."""

_MAX_INFLATED = 4 * 2**20
"""Bytes that a datagram may inflate to."""
_GZIP = b"\x1f\x8b"
_JSON = b"{[ \t\r\xef"
"""First bytes of JSON. A newline is none of them: it is how a serialized request begins."""


class Config(ComponentConfig):
    """Settings of the datagram receiver."""

    endpoint: Listening = Endpoint("127.0.0.1:4319")
    """`unix:///path`, or `host:port` for UDP; port 0 picks a free one."""
    max_datagram_size: ByteSize | None = None
    """Larger datagrams are counted and dropped; 208KiB on a unix socket and 64KiB over UDP if left out."""
    receive_buffer_size: Annotated[ByteSize, Field(ge=4096)] = 4 * 2**20
    """Room that the kernel is asked to keep for what has not been read yet. Without privilege it gives no more than
    the sysctl net.core.rmem_max; on a unix socket net.unix.max_dgram_qlen bounds the number of datagrams as well."""
    unix_mode: str = Field("0660", pattern="^0?[0-7]{3}$")
    """File mode of a unix socket."""
    unix_group: str | None = None
    """Group that owns a unix socket."""

    @model_validator(mode="after")
    def _room_for_something(self) -> Config:
        if self.max_datagram_size == 0:
            raise ValueError("max_datagram_size: 0 would take nothing; leave it out for the default")
        return self


class DatagramReceiver(Receiver):
    """Listens for datagrams."""

    def __init__(self, config: Config, context: Context) -> None:
        """Prepare; nothing is opened before `start`."""
        super().__init__(context)
        unix = bool(config.endpoint.unix)
        self._transport = "unixgram" if unix else "udp"
        self._origin = Origin(str(context.id), self._transport)
        self._limits: dict[str, LogLimit] = {}
        self._mended = Mended(str(context.id), context.log, context.registry)
        self._socket = DatagramSocket(
            config.endpoint,
            self._take,
            self._too_large,
            name=f"{context.kind.value}/{context.id}",
            limit=config.max_datagram_size or (UNIX_LIMIT if unix else UDP_LIMIT),
            receive_buffer=config.receive_buffer_size,
            unix_mode=config.unix_mode,
            unix_group=config.unix_group,
        )
        self._received = context.registry.counter(RECEIVED, receiver=str(context.id), transport=self._transport)

    async def start(self) -> None:
        """Listen; raise `StartError` with nothing left open."""
        sock = self._socket
        sock.start()
        self.context.registry.counter(
            LOST, lambda: sock.lost, receiver=str(self.context.id), transport=self._transport, reason="no_room"
        )
        self.context.log.info(
            "receiver listening",
            transport=self._transport,
            endpoint=sock.address,
            port=sock.port,
            receive_buffer=sock.receive_buffer_size,
            **_queue_length(self._transport),
        )

    async def shutdown(self) -> None:
        """Stop listening, having handed on what had arrived."""
        self._socket.shutdown()

    def endpoints(self) -> Mapping[str, str]:
        """Return where it listens."""
        return {self._transport: self._socket.address}

    def _take(self, data: bytes) -> None:
        """Hand on what a datagram holds. Whatever it holds, nothing is raised."""
        self._received.value += 1
        entry = self.next[Signal.TRACES]
        try:
            entry.admit()
            body = self._read(data)
            items = projections.check(Signal.TRACES, body)
            if items:
                entry.consume(Batch(Signal.TRACES, body, items, self._origin, ((Receipt(items), items),)))
        except RetryableError as error:
            self.drops.add(error)
        except ConsumeError as error:
            self._lose(error.reason, str(error))
        except Exception:
            self.context.log.exception("datagram failed")
            self._lose("internal", "internal error")

    def _read(self, data: bytes) -> bytes:
        """Return a datagram as an OTLP request in wire form."""
        if data.startswith(_GZIP):
            data = decompress("gzip", data, _MAX_INFLATED)
        if not data:
            raise MalformedError("the datagram is empty", reason="empty")
        if data[0] not in _JSON:
            return data
        if b'"traceID"' in data and b'"resourceSpans"' not in data:
            from otelwp_agent.codecs.jaeger.from_json import decode as decode_jaeger  # noqa: PLC0415 - for who sends it

            traces = decode_jaeger(data, time.time_ns())
            if traces.mended:
                self._mended.add(traces)
            return traces.body()
        from otelwp_agent.codecs.otlp_json import decode  # noqa: PLC0415 - the full messages, for who sends JSON

        return decode(Signal.TRACES, data)

    def _too_large(self, size: int) -> None:
        self._received.value += 1
        self._lose("too_large", f"{size} bytes are more than max_datagram_size")

    def _lose(self, reason: str, message: str) -> None:
        self.context.registry.counter(
            LOST, receiver=str(self.context.id), transport=self._transport, reason=reason
        ).add()
        limit = self._limits.get(reason)
        if limit is None:
            limit = self._limits[reason] = LogLimit(self.context.clock, LOG_EVERY)
        if datagrams := limit.take():
            self.context.log.error("datagrams lost", reason=reason, datagrams=datagrams, error=message)


def _queue_length(transport: str) -> dict[str, int]:
    """Return how many datagrams a unix socket holds, for the log: ten, where nobody has raised it."""
    try:
        return {"queue": int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())} if transport == "unixgram" else {}
    except (OSError, ValueError):
        return {}


FACTORY = Factory(
    Kind.RECEIVER,
    "datagram",
    Config,
    DatagramReceiver,
    signals=frozenset({Signal.TRACES}),
    stability=Stability.BETA,
    tier=Tier.FREE,
    reads=Reads.SHAPE,
    instruments=(RECEIVED, LOST, MENDED, *overload.INSTRUMENTS),
)
