"""One client connection of an HTTP/1.1 server: its unprocessed bytes, its pending responses and its deadline.

Keep-alive senders repeat the same head byte for byte. A head that was parsed once is cached with its meaning, and the
next request with these bytes goes to its handler without parsing (docs/adr/0003).

Invariants:

* Responses are sent in the order of their requests; one request is processed at a time.
* The bytes of an unfinished body are reserved in `Arrivals` and released exactly once.
* A client can only end its own session, whatever it sends.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import (
    ConsumeError,
    MalformedError,
    Overloaded,
    PermanentError,
    TooLargeError,
    refusal_for,
)
from otelwp_agent.limiting.addresses import peer_key
from otelwp_agent.transport.gate import http_certificate
from otelwp_agent.transport.http_body import ChunkedBody, LengthBody, TrailersTooLargeError
from otelwp_agent.transport.http_flow import (
    BODY,
    BUDGET,
    CLOSING,
    HEAD,
    WAITING,
)
from otelwp_agent.transport.http_heads import (
    END_OF_HEAD,
    MAX_HEAD,
    HeadReader,
    HeadTooLargeError,
    RequestPlan,
    parse_head,
)
from otelwp_agent.transport.http_lifetime import LINGER, ConnectionLifetime
from otelwp_agent.transport.http_messages import Response, Route, text_error
from otelwp_agent.transport.http_stream import EventStream

if TYPE_CHECKING:
    import asyncio

    from otelwp_agent.transport.authentication import PeerCertificate
    from otelwp_agent.transport.http_heads import ParsedHead, Passage
    from otelwp_agent.transport.http_session_owner import HttpSessionOwner

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BLANK = b"\r\n"
_END_SIZE = len(END_OF_HEAD)


class Session(ConnectionLifetime):
    """The connection of one client."""

    __slots__ = (
        "_admitted",
        "_arrivals",
        "_body",
        "_head",
        "_keeps",
        "_plan",
        "_refused",
        "_repeated",
        "_stream",
        "passage",
    )

    def __init__(self, server: HttpSessionOwner) -> None:
        """Serve a client of `server`; a reload replaces `server`."""
        super().__init__(server)
        self._arrivals = server.arrivals
        self._head: HeadReader | None = None  # set while HEAD is set
        self._plan: RequestPlan | None = None  # set while BODY is set
        self._keeps = True  # whether the body is kept
        self._body: LengthBody | ChunkedBody | None = None  # set while BODY is set and a part of the body has arrived
        self._refused: Response | None = None  # the response to the current request, if its route has refused it
        self._repeated = b""  # the head of the last request if it was refused: senders repeat it
        self.passage: Passage | None = None  # kept for the gate
        self._admitted: Passage | None = None  # set while a request that the gate has admitted is in progress
        self._stream: EventStream | None = None  # set while the response is a stream that has not ended

    # -- called by the transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        """Return the buffer that all sessions share. It is empty between two reads."""
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process the bytes that were read.

        A complete request with a cached head is taken directly from the buffer, with one copy; without any if it is
        refused.
        """
        server = self.server
        buffer, memory = server.buffer, server.memory
        if not self._busy:
            raw = self._repeated
            if not (raw and memory.startswith(raw)):
                raw = bytes(buffer[: memory.find(END_OF_HEAD, 0, nbytes) + _END_SIZE])
            plan = server.plans.get(raw)
            if plan is not None and len(raw) + plan.length == nbytes:
                if self._admit(plan):
                    self._repeated = b""
                    self._finish(plan, bytes(buffer[len(raw) : nbytes]))
                else:
                    self._repeated = raw
                    self._finish(plan, b"")
                return
        self.data_received(bytes(buffer[:nbytes]))

    # -- the input

    def _step(self, data: bytes, at: int) -> int:
        busy = self._busy
        return self._collect(data, at) if busy & BODY else self._read_head(data, at) if busy else self._begin(data, at)

    def _begin(self, data: bytes, at: int) -> int:
        """Begin a request at `data[at:]`; return the position after the bytes that were read."""
        server = self.server
        if data[at] in _BLANK:  # RFC 9112, 2.2: ignored before a request; the deadline does not change
            return len(data) - len(data[at:].lstrip(_BLANK))
        end = data.find(END_OF_HEAD, at) + _END_SIZE
        if end < _END_SIZE or end - at > MAX_HEAD:
            self._head = HeadReader()
            self._busy |= HEAD
            self.deadline = server.now + server.timeouts.header
            return self._read_head(data, at)
        raw = data[at:end]
        plan = server.plans.get(raw)
        if plan is not None:
            return self._begin_body(plan, data, end, keep=self._admit(plan))
        try:
            parsed = parse_head(raw)
        except PermanentError as error:
            return self._refuse_head(error, data)
        return self._begin_parsed(parsed, raw, data, end)

    def _read_head(self, data: bytes, at: int) -> int:
        """Read a part of a head from `data[at:]`; return the position after it."""
        head, parsed = self._head, None
        assert head is not None  # noqa: S101 - set while HEAD is set
        try:
            end = head.end_in(data, at)
            if end < 0:
                head.feed(data[at:])
            else:
                parsed = head.finish(data[at:end])
        except PermanentError as error:
            return self._refuse_head(error, data)
        if parsed is None:
            return len(data)
        self._head = None
        self._busy &= ~HEAD
        return self._begin_parsed(parsed, b"", data, end)

    def _begin_parsed(self, parsed: ParsedHead, raw: bytes, data: bytes, at: int) -> int:
        """Begin a request with a parsed head; `raw` are its bytes if it arrived in one piece."""
        server, fields = self.server, parsed.fields
        plan = server.plan(parsed)
        if plan.chunked and fields["transfer-encoding"].lower() != "chunked":
            error: ConsumeError = PermanentError(
                "only chunked is accepted as transfer coding", reason="transfer_coding"
            )
            return self._refuse(server.refused(error, 501), data, plan.extra)
        if plan.length > server.limit:
            error = TooLargeError(f"the body has {plan.length} bytes; {server.limit} are accepted at most")
            return self._refuse(server.refusal(plan, error), data, plan.extra)
        if "expect" in fields:
            return self._begin_expecting(plan, fields["expect"], data, at)
        keep = self._admit(plan)
        if raw and (keep or server.gate is None):
            server.heads.remember(raw, plan)
        elif raw:  # heads with wrong credentials must not replace others
            server.heads.remember_refused(raw, plan)
        return self._begin_body(plan, data, at, keep=keep)

    def _begin_expecting(self, plan: RequestPlan, expectation: str, data: bytes, at: int) -> int:
        if expectation.lower() != "100-continue":
            return self._refuse(text_error(417, "the only supported expectation is 100-continue"), data)
        if self._admit(plan) and isinstance(plan.route, Route):
            self.transport.write(_CONTINUE)
            return self._begin_body(plan, data, at, keep=True)
        refused = self._refused or self.server.respond(plan, b"", self.peer)
        assert isinstance(refused, Response)  # noqa: S101 - a plan without a route has a Response
        return self._refuse(refused, data, plan.extra)

    def _begin_body(self, plan: RequestPlan, data: bytes, at: int, *, keep: bool) -> int:
        """Read the body of a request from `data[at:]`. If `keep` is False, it is dropped."""
        keep = keep and isinstance(plan.route, Route)
        if plan.chunked:
            self._body = ChunkedBody(self.server.limit, keep=keep)
        else:
            end = at + plan.length
            if end <= len(data):
                self._finish(plan, data[at:end] if keep else b"")
                return end
            self._keeps = keep
        self._plan = plan
        self._busy |= BODY
        self.deadline = self.server.now + self.server.timeouts.body
        return at

    def _collect(self, data: bytes, at: int) -> int:
        """Add the bytes of the body from `data[at:]`; return the position after them."""
        body, plan = self._body, self._plan
        assert plan is not None  # noqa: S101 - set while BODY is set
        if body is None:
            end = at + plan.length
            if end <= len(data):  # many clients send the head and the body separately
                self._busy &= ~BODY
                self._plan = None
                self._finish(plan, data[at:end] if self._keeps else b"")
                return end
            body = self._body = LengthBody(plan.length, keep=self._keeps)
        before = body.size
        try:
            at = body.feed(data, at)
        except MalformedError as error:
            return self._refuse(self.server.refused(error, 400), data, plan.extra)
        except TooLargeError as error:
            status = 431 if isinstance(error, TrailersTooLargeError) else 0
            return self._refuse(self.server.refusal(plan, error, status), data, plan.extra)
        if body.done:
            self._busy &= ~BODY
            self._body = self._plan = None
            try:
                self._finish(plan, body.join())
            finally:
                if before:
                    self._end_arrival()
        elif body.size > before:
            self._arrivals.add(self, body, body.size - before)
        return at

    def _end_arrival(self) -> None:
        """Release the reservation of the body, and resume reading if it was paused for the budget."""
        self._arrivals.end(self)
        if not self._busy & CLOSING:
            self._unpause(BUDGET)

    def _refuse(self, response: Response, data: bytes, extra: bytes = b"") -> int:
        """Answer and close; return the end of `data`."""
        self._respond_and_close(response, extra)
        return len(data)

    def _refuse_head(self, error: PermanentError, data: bytes) -> int:
        return self._refuse(self.server.refused(error, 431 if isinstance(error, HeadTooLargeError) else 400), data)

    def _drop_input(self) -> None:
        if not self._busy & WAITING:  # else the request ends with its answer
            self._leave()
        super()._drop_input()
        self._arrivals.end(self)
        self._body = self._plan = self._head = None

    # -- the memory budget of unfinished bodies

    def pause_body(self) -> None:
        """Stop reading: `Arrivals` reads other bodies first."""
        self._pause(BUDGET)

    def resume_body(self) -> None:
        """Resume reading."""
        self._unpause(BUDGET)

    def refuse_body(self) -> None:
        """Answer 503 before the body has arrived, and drop it."""
        plan = self._plan
        assert plan is not None  # noqa: S101 - only unfinished bodies are refused
        message = "unfinished requests use too much memory; send fewer at once, or faster"
        error = Overloaded(message, retry_after=LINGER, reason="in_flight")
        self._respond_and_close(self.server.refusal(plan, error, 503), plan.extra)

    # -- responses

    def _admit(self, plan: RequestPlan) -> bool:
        """Return whether the peer's rate and the route accept the request now, before its body is read."""
        server, route = self.server, plan.route
        if server.peer_rate is not None and self.peer:
            wait = server.peer_rates.take(peer_key(self.peer), server.peer_rate, time.monotonic())
            if wait:
                error = Overloaded("too many requests from this address", retry_after=wait, reason="peer_rate")
                self._refused = server.refusal(plan, error)
                return False
        if not isinstance(route, Route):
            return True
        gate = server.gate
        try:
            if gate is not None:
                passage = gate.enter(plan, self)
                allowance = passage.allowance
                if allowance is not None and (refusal := gate.begin(allowance)) is not None:
                    self._refused = server.refusal(plan, refusal)
                    return False
                self._admitted = passage
            if route.admit is not None:
                route.admit()
        except ConsumeError as error:
            self._refused = server.refusal(plan, refusal_for(self._withdraw(), error))
            return False
        return True

    def certificate(self) -> PeerCertificate | None:
        """Return the verified certificate of the client, or `None`."""
        return http_certificate(self.ssl_object())

    def _leave(self) -> None:
        """Note that the admitted request is no longer in progress."""
        admitted, self._admitted = self._admitted, None
        if admitted is not None and admitted.allowance is not None:
            admitted.allowance.end()

    def _withdraw(self) -> str:
        """Take back what the gate has counted for the request; return the tenant, "" if there is none."""
        admitted, self._admitted = self._admitted, None
        if admitted is None:
            return ""
        if admitted.allowance is not None:
            admitted.allowance.withdraw()
        return admitted.plan.head.tenant

    def _finish(self, plan: RequestPlan, body: bytes) -> None:
        """Answer a complete request."""
        refused = self._refused
        if refused is not None:
            self._refused = None
            self._write(plan, refused)
            return
        admitted = self._admitted
        answer = self.server.respond(plan if admitted is None else admitted.plan, body, self.peer)
        if isinstance(answer, Response):
            if admitted is not None:
                self._leave()
            self._write(plan, answer)
        else:
            self._busy |= WAITING
            self.deadline = math.inf
            answer.add_done_callback(lambda done: self._outcome(plan, done))

    def _outcome(self, plan: RequestPlan, answer: asyncio.Future[Response]) -> None:
        """Send a response that was pending, then process the bytes that have arrived meanwhile."""
        error = None if answer.cancelled() else answer.exception()
        self._leave()
        if self._busy & CLOSING:
            return
        if isinstance(error, ConsumeError):
            self._write(plan, self.server.refusal(plan, error))
        elif answer.cancelled() or error is not None:
            self.server.on_refused("internal")
            self._write(plan, text_error(500, "internal error; the agent's log has the details"))
        else:
            response = answer.result()
            if isinstance(response, EventStream):  # the request ends with the connection
                self._stream = response
                response.open(self.transport, self.server.prefix + plan.extra)
                return
            self._write(plan, response)
        self._unblock(WAITING)

    def eof_received(self) -> bool:
        """Close a stream of events with its client; another response that is pending is still sent."""
        return self._stream is None and super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything, and end the stream of events if there is one."""
        super().connection_lost(exc)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.ended()

    def drain(self) -> None:
        """Close now if no request is in progress, or if the body waits for memory; otherwise after the response."""
        if self._paused & BUDGET:
            self.refuse_body()
        if self._stream is not None:
            self._stream.close()
        super().drain()
