"""Receive traces in datagrams, from senders that must not wait: a PHP page writes a datagram and continues.

The receiver is the start of a pipeline, on a unix socket or on loopback UDP. Each datagram contains one OTLP request of
traces, as protobuf or JSON, or a body that the `jaeger_json` receiver accepts; each of them may be compressed with
gzip. The first bytes determine the format. Senders get no answer: lost datagrams are counted by reason, and logged once
a minute. Datagrams are neither encrypted nor acknowledged, and every client that reaches the port can send UDP
datagrams: listen only on this host.

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

from otelwp_agent.codecs.repairs import REPAIRS, Repairs
from otelwp_agent.component import ComponentConfig, Context, Factory, Kind, Reads, Receiver, Stability, Tier
from otelwp_agent.config.blocks import Listening  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.types import ByteSize, Endpoint
from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.checking import checker
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.transport import overload
from otelwp_agent.transport.compression import MAX_RATIO, decompress
from otelwp_agent.transport.datagram import DatagramSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIVED = Instrument("otelwp_receiver_datagrams", "Datagrams that arrived.", labels=("receiver", "transport"))
LOST = Instrument(
    "otelwp_receiver_lost_datagrams",
    "Lost datagrams, by reason: too_large, empty, malformed, internal, …; no_room if the kernel's buffer was full.",
    labels=("receiver", "transport", "reason"),
)

UNIX_LIMIT = 208 * 1024
"""Largest message that Linux accepts on a unix socket from an unprivileged sender (net.core.wmem_max)."""
UDP_LIMIT = 64 * 1024
LOG_EVERY = 60.0
"""Seconds between two log lines about datagrams lost for the same reason."""

DEFAULT_MAX_ITEMS = 25_000
"""Three times the spans of the largest compressed datagram: each has 24 bytes of random ids."""

_MAX_INFLATED = 4 * 2**20
"""Maximum number of bytes of a decompressed datagram."""
_FREE_INFLATED = 64 * 1024
"""Decompressed bytes that are allowed whatever the size of the datagram; above, at most `MAX_RATIO` times its size."""
_GZIP = b"\x1f\x8b"
_JSON = b"{[ \t\r\xef"
"""First bytes of JSON. A line feed is not one of them, because a serialized request begins with it."""


class Config(ComponentConfig):
    """Settings of the datagram receiver."""

    endpoint: Listening = Endpoint("127.0.0.1:4319")
    """`unix:///path`, or `host:port` for UDP; port 0 picks a free one."""
    max_datagram_size: ByteSize | None = None
    """Larger datagrams are counted and dropped. Default: 208KiB on a unix socket and 64KiB over UDP."""
    receive_buffer_size: Annotated[ByteSize, Field(ge=4096)] = 4 * 2**20
    """Size of the kernel's buffer for datagrams that have not been read yet.

    Without privileges, the kernel allows at most the sysctl net.core.rmem_max. On a unix socket,
    net.unix.max_dgram_qlen also limits the number of datagrams.
    """
    max_items_per_request: int = Field(DEFAULT_MAX_ITEMS, gt=0)
    """Maximum number of resources, scopes and spans in a datagram; one with more is counted as `too_large` and dropped.
    The parts of spans are limited in proportion."""
    unix_mode: str = Field("0660", pattern="^0?[0-7]{3}$")
    """File mode of a unix socket."""
    unix_group: str | None = None
    """Group that owns a unix socket."""

    @model_validator(mode="after")
    def _accepts_datagrams(self) -> Config:
        if self.max_datagram_size == 0:
            raise ValueError("max_datagram_size: 0 would drop every datagram; remove it to use the default")
        return self


class DatagramReceiver(Receiver):
    """Listens for datagrams."""

    def __init__(self, config: Config, context: Context) -> None:
        """Create the socket object; `start` opens the socket."""
        super().__init__(context)
        unix = bool(config.endpoint.unix)
        self._transport = "unixgram" if unix else "udp"
        self._origin = Origin(str(context.id), self._transport)
        self._limits: dict[str, LogLimit] = {}
        self._max_items = config.max_items_per_request
        self._check = checker(Signal.TRACES, self._max_items)
        self._repairs = Repairs(str(context.id), context.log, context.registry)
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
        """Listen; raise `StartError` and leave nothing open."""
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
        """Stop listening, after forwarding the datagrams that have arrived."""
        self._socket.shutdown()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening address."""
        return {self._transport: self._socket.address}

    def _take(self, data: bytes) -> None:
        """Forward the contents of a datagram. Never raises, whatever the datagram contains."""
        self._received.value += 1
        entry = self.next[Signal.TRACES]
        try:
            entry.admit()
            body = self._read(data)
            items = self._check(body)
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
        """Return a datagram as a serialized OTLP request."""
        if data.startswith(_GZIP):
            data = decompress("gzip", data, min(_MAX_INFLATED, max(_FREE_INFLATED, MAX_RATIO * len(data))))
        if not data:
            raise MalformedError("the datagram is empty", reason="empty")
        if data[0] not in _JSON:
            return data
        if b'"traceID"' in data and b'"resourceSpans"' not in data:
            from otelwp_agent.codecs.jaeger.from_json import decode as decode_jaeger  # noqa: PLC0415 - Jaeger only

            traces = decode_jaeger(data, time.time_ns(), self._max_items)
            if traces.repairs:
                self._repairs.add(traces)
            return traces.body()
        from otelwp_agent.codecs.otlp_json import decode  # noqa: PLC0415 - the full messages are needed only for JSON

        return decode(Signal.TRACES, data, self._max_items)

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
    """Return the maximum number of waiting datagrams on a unix socket, for the log; the kernel's default is ten."""
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
    instruments=(RECEIVED, LOST, REPAIRS, *overload.INSTRUMENTS),
)
