"""One call of a gRPC server: admit its sender, call the handler with its message, answer with the result.

Invariants:

* A call is admitted before its message is read, and released exactly once (`_leave`).
* The bytes of a complete message are in `InFlight` until its handler has answered, even if the client has gone.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, Overloaded, PermanentError, RetryableError, refusal_for
from otelwp_agent.transport import grpc_answers, grpc_health
from otelwp_agent.transport.grpc_heads import seconds_of
from otelwp_agent.transport.grpc_message import PREFIX, RETRY_AFTER, IncomingMessage
from otelwp_agent.transport.http2.streams import Stream
from otelwp_agent.transport.status import GrpcCode

if TYPE_CHECKING:
    from otelwp_agent.transport.gate import Caller
    from otelwp_agent.transport.grpc_heads import CallHead
    from otelwp_agent.transport.grpc_owner import CallSession, GrpcOwner
    from otelwp_agent.transport.http2.request_heads import RequestHead

_EMPTY = bytes(PREFIX)
_INTERNAL = grpc_answers.failure(GrpcCode.INTERNAL, "internal error; the agent's log has the details")
_DEADLINE = grpc_answers.failure(GrpcCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")
_NOT_FOUND = grpc_answers.failure(GrpcCode.NOT_FOUND, "this server has no such service")
_MAX_DROPPED = 64 * 1024
"""Bytes of a body that are read and dropped before the request is answered."""


class GrpcCall(IncomingMessage):
    """A call from its head to its answer."""

    __slots__ = ("_admitted", "_caller", "_meaning", "_method", "_peer", "_timeout")

    def __init__(self, session: CallSession, number: int, head: RequestHead, meaning: CallHead) -> None:
        """Belong to `session`; `meaning` is that of `head`."""
        super().__init__(session, number, head)
        self._meaning = meaning
        self._timeout = math.inf
        self._method = head.path
        self._caller: Caller | None = None
        self._admitted = False
        self._peer = ""  # set while the call counts for an address

    def opened(self) -> None:
        """Admit the call or refuse it, before its message is read."""
        server, meaning = self.session.server, self._meaning
        self.encoding = meaning.encoding
        if self.head.timeout is not None:
            self._timeout = seconds_of(self.head.timeout)
            if math.isnan(self._timeout):
                self.refuse(PermanentError("grpc-timeout is invalid", reason="malformed"), code=GrpcCode.INTERNAL)
                return
        self.deadline = server.now + min(self._timeout, server.timeouts.body)
        if self._method not in server.methods and self._method != grpc_health.CHECK:
            message = f"this server has no method {self._method}"
            self.refuse(PermanentError(message, reason="unknown_method"), code=GrpcCode.UNIMPLEMENTED)
        elif not meaning.known_encoding:
            server.on_refused("unknown_encoding")
            known = ", ".join(grpc_answers.ENCODINGS)
            message = f"unknown encoding {meaning.encoding!r}: accepted: {known}"
            self._answer(grpc_answers.failure(GrpcCode.UNIMPLEMENTED, message) + grpc_answers.ACCEPTED)
        elif self._method in server.methods:
            self._open(server, meaning)

    def aborted(self) -> None:
        """Forget the call: no client reads its answer. Its handler is not cancelled."""
        self.drop()
        self._leave()

    def expire(self) -> None:
        """Answer a call whose time has passed: its own deadline, or the time for its message."""
        limit = self.session.server.timeouts.body
        if self._timeout <= limit or self.ended:
            self._answer(_DEADLINE)
        else:
            message = f"the message did not arrive within read_timeout ({limit:g} s)"
            self.refuse(RetryableError(message, reason="timeout"))

    def handle(self, message: bytes) -> None:
        """Call the handler with the complete message, and answer with its result."""
        server = self.session.server
        handler = server.methods.get(self._method)
        if handler is None:
            self._check_health(server, message)
            return
        caller = self._caller
        assert caller is not None  # noqa: S101 - the call was admitted
        in_flight, size = server.in_flight, len(message)
        in_flight.used += size
        try:
            answer = handler(message, caller)
        except ConsumeError as error:
            in_flight.used -= size
            self._answer(grpc_answers.refusal(refusal_for(caller.tenant, error)))
        except Exception:
            in_flight.used -= size
            server.log.exception("request failed", server=server.name, method=self._method)
            self._answer(_INTERNAL)
        else:
            if isinstance(answer, bytes):
                in_flight.used -= size
                self._succeed(answer)
            else:
                self.deadline = server.now + self._timeout
                server.waiting.add(answer)
                answer.add_done_callback(partial(self._finish, server, size))

    def refuse(self, error: ConsumeError, *, code: GrpcCode | None = None) -> None:
        """Count and answer an error that the server itself has found; `code` replaces the code of the error."""
        self.session.server.on_refused(error.reason)
        block = grpc_answers.refusal(error) if code is None else grpc_answers.failure(code, str(error))
        self._answer(block)

    def _open(self, server: GrpcOwner, meaning: CallHead) -> None:
        """Admit the call, or refuse it."""
        session = self.session
        try:
            self._caller = meaning.caller if server.gate is None else self._enter(server, meaning)
            if server.in_flight.used > server.in_flight.hard:
                message = "too many bytes of requests are in flight"
                raise Overloaded(message, retry_after=RETRY_AFTER, reason="in_flight")
            if server.settings.max_concurrent_streams_per_peer and session.peer:
                self._peer = server.per_peer.begin(session.peer, server.settings.max_concurrent_streams_per_peer)
        except ConsumeError as error:
            self.refuse(error)
            return
        if self.deadline < session.deadline:  # noqa: PLR1730 - `min` costs more, in each call
            session.deadline = self.deadline
        if self.ended:
            self.collect(b"")

    def _enter(self, server: GrpcOwner, meaning: CallHead) -> Caller:
        """Return the sender, whose allowance has begun; raise `ConsumeError` if it is refused."""
        gate, session = server.gate, self.session
        assert gate is not None  # noqa: S101 - the caller has checked
        caller = gate.enter_call(meaning.metadata, session.peer, session.certificate, self._method)
        if caller.allowance is not None:
            refusal = gate.begin(caller.allowance)
            if refusal is not None:
                raise refusal.with_traceback(None)  # one error refuses many calls: its traceback must not grow
            self._admitted = True
        return caller

    def _leave(self) -> None:
        """Release what the call was admitted with."""
        caller = self._caller
        if self._admitted and caller is not None and caller.allowance is not None:
            self._admitted = False
            caller.allowance.end()
        if self._peer:
            self.session.server.per_peer.end(self._peer)
            self._peer = ""

    def _check_health(self, server: GrpcOwner, message: bytes) -> None:
        try:
            service = grpc_health.service_of(message)
        except ConsumeError as error:
            self.refuse(error)
            return
        if service in server.services:
            self._succeed(grpc_health.NOT_SERVING if server.draining else grpc_health.SERVING)
        else:
            self._answer(_NOT_FOUND)

    def _finish(self, server: GrpcOwner, size: int, answer: asyncio.Future[bytes]) -> None:
        """Answer with the result of a handler that was pending."""
        server.waiting.discard(answer)
        server.in_flight.used -= size
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            self._succeed(answer.result())
        elif isinstance(error, ConsumeError):
            tenant = "" if self._caller is None else self._caller.tenant
            self._answer(grpc_answers.refusal(refusal_for(tenant, error)))
        else:
            server.log.error("request failed", server=server.name, method=self._method, exc_info=error)
            self._answer(_INTERNAL)
        self.session.flush_soon()

    def _succeed(self, answer: bytes) -> None:
        """Answer with a message."""
        self._leave()
        message = b"\x00" + len(answer).to_bytes(4, "big") + answer if answer else _EMPTY
        self.connection.respond(self, grpc_answers.START, message, grpc_answers.OK)

    def _answer(self, block: bytes) -> None:
        """Answer without a message."""
        self.drop()
        self._leave()
        self.connection.respond_at_once(self, block)


class NotGrpc(Stream):
    """A request that is not gRPC. It is answered when it is complete, or too large."""

    __slots__ = ("_session", "_size", "_status")

    def __init__(self, session: CallSession, number: int, head: RequestHead, status: int) -> None:
        """Answer with the HTTP status `status`."""
        super().__init__(session.connection, number, head)
        self._session = session
        self._status = status
        self._size = 0

    def opened(self) -> None:
        """Wait for the end of the request."""
        session = self._session
        session.server.on_refused("not_grpc")
        self.deadline = session.server.now + session.server.timeouts.body
        self.received(b"", 0, 0)

    def received(self, data: bytes, start: int, stop: int) -> None:  # noqa: ARG002 - the body is dropped
        """Answer if this is the end."""
        self._size += stop - start
        if self.ended or self._size > _MAX_DROPPED:
            self.expire()

    def expire(self) -> None:
        """Answer."""
        self.connection.respond(self, grpc_answers.http_start(self._status), b"this port speaks gRPC only\n", b"")

    def aborted(self) -> None:
        """Do nothing: nothing was kept."""
