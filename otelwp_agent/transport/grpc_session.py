"""One connection of a gRPC server: reads from its transport, writes what the HTTP/2 engine sends, and has a deadline.

All frames of one read are answered with one write.

Invariants:

* A connection is counted when it starts, and removed from its server exactly once.
* While the client does not read our answers, nothing is read from it.
* Kept bytes (an incomplete frame, or requests that wait for their turn) are reserved in `InFlight` and released once.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, cast

from otelwp_agent.transport.connections import peer_of
from otelwp_agent.transport.gate import http_certificate
from otelwp_agent.transport.grpc_call import GrpcCall, NotGrpc
from otelwp_agent.transport.grpc_heads import CallHead
from otelwp_agent.transport.grpc_timeouts import DRAIN, WRITE
from otelwp_agent.transport.http2.connection import Http2Connection
from otelwp_agent.transport.http2.frames import ErrorCode
from otelwp_agent.transport.http2.pings import PingRules

if TYPE_CHECKING:
    import ssl

    from otelwp_agent.transport.authentication import PeerCertificate
    from otelwp_agent.transport.connections import Trust
    from otelwp_agent.transport.grpc_owner import GrpcOwner
    from otelwp_agent.transport.http2.request_heads import RequestHead
    from otelwp_agent.transport.http2.streams import Stream
    from otelwp_agent.transport.http_tls import Handshake

CALLS_PER_TURN = 64
"""Calls that are begun before other connections are served."""
LINGER = 2.0
"""Seconds for which a client may continue to send after an error, so that it can read the reason."""


class GrpcSession(asyncio.BufferedProtocol):
    """The connection of one client of `server`; a reload replaces `server`."""

    def __init__(self, server: GrpcOwner) -> None:
        """Start with the settings of `server`."""
        self.server = server
        self.peer = ""
        self.deadline = math.inf
        self.old_at = math.inf
        keepalive = server.settings.keepalive
        policy = keepalive.enforcement_policy if keepalive is not None else None
        loop = asyncio.get_running_loop()
        self.connection = Http2Connection(
            self._open_stream,
            server.memory,
            loop.time,
            max_streams=server.settings.max_concurrent_streams,
            pings=PingRules(
                loop.time,
                policy.min_time if policy is not None else None,
                permit_without_stream=policy is not None and policy.permit_without_stream,
            ),
        )
        self._transport: asyncio.Transport | None = None
        self._kept = b""
        self._ended = False  # whether nothing more is read
        self._unwritable = False
        self._yielded = False
        self._flushing = False  # whether a flush is scheduled
        self._active_at = server.now  # the last time at which bytes arrived
        self._began_at = math.inf  # when the kept bytes, or an incomplete header block, began to arrive
        self._pinged_at = math.inf
        self._blocked_at = math.inf  # since when answers wait for a window, or for the client to read
        self._drained_at = math.inf
        self._certificate: PeerCertificate | None = None

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; close it if there are too many."""
        server = self.server
        self.peer = peer_of(transport)
        reason = server.sessions.add(self)
        if reason:
            server.on_refused(reason)
            self._ended = True
            transport.close()
        else:
            self.begin(transport, self.peer)

    def begin(self, transport: asyncio.BaseTransport, peer: str) -> None:
        """Use `transport`, whose connection is already counted."""
        server = self.server
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's
        self.peer = peer
        now = server.now
        self._active_at = self._began_at = now
        self.old_at = now + server.timeouts.age()
        self.deadline = now + server.timeouts.header
        self.connection.open()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Release everything."""
        self._ended = True
        self._keep(b"")
        self.connection.close()
        self.server.session_ended(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        """Return the buffer that all connections share. It is empty between two reads."""
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process the bytes that were read."""
        if self._ended:
            return
        data = bytes(self.server.buffer[:nbytes])
        self._read(self._kept + data if self._kept else data)

    def eof_received(self) -> bool:
        """Close: a client that has closed its side opens no more calls and reads no answers."""
        return False

    def pause_writing(self) -> None:
        """Read nothing while the client does not read."""
        self._unwritable = True
        self._pause(self._transport)
        self._look_at(self.server.now + WRITE)
        self._blocked_at = min(self._blocked_at, self.server.now)

    def resume_writing(self) -> None:
        """Continue: the client reads again."""
        self._unwritable = False
        self._blocked_at = math.inf
        self._resume()

    # -- called by calls

    def flush_soon(self) -> None:
        """Write after all callbacks of this turn of the loop, which may answer more calls."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what is to be sent; close the connection if it has ended."""
        self._flushing = False
        connection, transport = self.connection, self._transport
        if transport is None or transport.is_closing():
            return
        if connection.out:
            transport.write(b"".join(connection.out))
            connection.out.clear()
        if connection.blocked:
            if self._blocked_at == math.inf:
                self._blocked_at = self.server.now
                self._look_at(self.server.now + WRITE)
        elif not self._unwritable:
            self._blocked_at = math.inf
        if connection.error is not None:
            self._linger(transport)
        elif connection.finished or connection.closed:
            self._ended = True
            transport.close()

    def certificate(self) -> PeerCertificate | None:
        """Return the verified certificate of the client, or `None`."""
        if self._certificate is None:
            self._certificate = http_certificate(self.ssl_object())
        return self._certificate

    def ssl_object(self) -> ssl.SSLObject | None:
        """Return the state of TLS, or `None`."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    # -- called by the server

    def moved(self) -> None:
        """Continue with the settings of the server's successor."""
        self.connection.allow(self.server.settings.max_concurrent_streams)
        self.flush()

    def time_is_up(self) -> None:
        """Do what is due: refuse late messages, close slow or idle connections, ask whether the client is there."""
        connection, server = self.connection, self.server
        now, timeouts = server.now, server.timeouts
        if self._ended or self._blocked_at + WRITE <= now or self._pinged_at + timeouts.answer_to_ping <= now:
            self.abort()
            return
        if self._began_at + (timeouts.body if connection.ready else timeouts.header) <= now:
            server.on_refused("timeout")
            connection.fail(ErrorCode.SETTINGS_TIMEOUT, "a frame did not arrive in time")
        for call in list(connection.streams.values()):
            if call.deadline <= now:
                call.expire()
        if self._drained_at <= now:
            connection.finish_drain()
        if not connection.streams and self._active_at + timeouts.idle <= now:
            connection.finish_drain()
        if self._active_at + timeouts.ping <= now and self._pinged_at == math.inf:
            self._pinged_at = now
            connection.check_alive()
        self.flush()
        if not self._ended:
            self.deadline = self._next_deadline()

    def grow_old(self) -> None:
        """Let the client finish its calls and leave; when called again, close."""
        if self.connection.draining:
            self.abort()
            return
        self.old_at = self.server.now + self.server.timeouts.age_grace
        self.drain()

    def verify_again(self, trusts: Trust) -> None:
        """End the connection after the work in progress if the client's certificate is not trusted any more."""
        if not trusts(self.ssl_object()):
            self.drain()

    def drain(self) -> None:
        """Let the client finish its calls, and close the connection after them."""
        connection = self.connection
        if not connection.ready:
            connection.finish_drain()
        else:
            connection.drain()
            self._drained_at = self.server.now + DRAIN
            self._look_at(self._drained_at)
        self.flush()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- the input

    def _open_stream(self, number: int, head: RequestHead) -> Stream:
        """Return the stream for a request; what its head means is found out once."""
        base = head.base or head
        meaning: CallHead | None = base.meaning
        if meaning is None:
            meaning = base.meaning = CallHead(base)
        if meaning.http_status:
            return NotGrpc(self, number, head, meaning.http_status)
        return GrpcCall(self, number, head, meaning)

    def _read(self, data: bytes) -> None:
        """Process `data`, keep what is incomplete, and answer."""
        connection, server = self.connection, self.server
        was_ready = connection.ready
        at = connection.receive(data, CALLS_PER_TURN)
        self._active_at = server.now
        answered, self._pinged_at = self._pinged_at != math.inf, math.inf
        if at < len(data) or self._kept:
            self._keep(b"" if connection.closed else data[at:])
        if self._kept or connection.in_block or not connection.ready:
            if at or self._began_at == math.inf:
                self._began_at = server.now if connection.ready else self._began_at
                self._look_at(self._began_at + server.timeouts.header)
        else:
            self._began_at = math.inf
        if answered or (connection.ready and not was_ready):
            self.deadline = self._next_deadline()
        if connection.turn <= 0 and self._kept:
            self._yielded = True
            self._pause(self._transport)
            asyncio.get_running_loop().call_soon(self._continue)
        self.flush()

    def _continue(self) -> None:
        """Process the requests that have waited for their turn."""
        self._yielded = False
        self._resume()

    def _keep(self, data: bytes) -> None:
        self.server.in_flight.used += len(data) - len(self._kept)
        self._kept = data

    def _pause(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and transport.is_reading():
            transport.pause_reading()

    def _resume(self) -> None:
        """Read again, unless there is another reason not to."""
        transport = self._transport
        if self._unwritable or self._yielded or self._ended or transport is None or transport.is_closing():
            return
        if self._kept:
            self._read(self._kept)
        if not (self._unwritable or self._yielded or transport.is_closing()):
            transport.resume_reading()

    # -- time

    def _look_at(self, time: float) -> None:
        """Call `time_is_up` at `time` or earlier."""
        self.deadline = min(self.deadline, time)

    def _next_deadline(self) -> float:
        timeouts, connection = self.server.timeouts, self.connection
        deadlines = [call.deadline for call in connection.streams.values()]
        idle_since = self.server.now if deadlines else self._active_at
        return min(
            *deadlines,
            idle_since + timeouts.idle,
            self._began_at + (timeouts.body if connection.ready else timeouts.header),
            self._blocked_at + WRITE,
            self._drained_at,
            self._pinged_at + timeouts.answer_to_ping,
            self._active_at + timeouts.ping if self._pinged_at == math.inf else math.inf,
        )

    def _linger(self, transport: asyncio.Transport) -> None:
        """Let the client read why the connection ends; drop what it still sends."""
        if self._ended:
            return
        self._ended = True
        self._keep(b"")
        assert self.connection.error is not None  # noqa: S101 - the caller has checked
        self.server.on_refused(self.connection.error[0].name.lower())
        if transport.can_write_eof():
            transport.write_eof()
            self.deadline = self.server.now + LINGER
            if not transport.is_reading():
                transport.resume_reading()
        else:
            transport.close()


class SecuredGrpcSession(GrpcSession):
    """A session whose connection is already counted as a handshake."""

    def __init__(self, handshake: Handshake) -> None:
        """Replace `handshake` as soon as there is a transport."""
        super().__init__(handshake.server)
        self._handshake: Handshake | None = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Continue with the connection of the completed handshake."""
        handshake, self._handshake = self._handshake, None
        assert handshake is not None  # noqa: S101 - called once
        self.server = handshake.server
        self.server.sessions.replace(handshake, self)
        self.begin(transport, handshake.peer)
