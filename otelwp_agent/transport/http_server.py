"""The HTTP/1.1 server of all HTTP receivers: httptools parses, uvloop transfers the bytes, routes handle requests.

`HttpServer` listens, holds the routes and runs the timer; each of its clients is a `http_session.Session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RateLimitedError, RetryableError, StartError, UnauthenticatedError
from otelwp_agent.limiting.gcra import Gcra, Rate
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.compression import INFLATE_OFF_LOOP, decompress
from otelwp_agent.transport.connections import Connections
from otelwp_agent.transport.decoding import OBJECTS, Decoding, in_one_step
from otelwp_agent.transport.gate import require_gate
from otelwp_agent.transport.http_arrivals import Arrivals
from otelwp_agent.transport.http_cors import CorsRules
from otelwp_agent.transport.http_heads import HeadCache, RequestPlan
from otelwp_agent.transport.http_listeners import Listeners
from otelwp_agent.transport.http_messages import Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_session import Session
from otelwp_agent.transport.http_timeouts import ConnectionTimeouts
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.local_access import CROSS_ORIGIN, is_cross_origin

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.http_heads import ParsedHead
    from otelwp_agent.transport.http_listeners import Acceptor
    from otelwp_agent.transport.http_messages import ErrorRenderer
    from otelwp_agent.transport.http_session_owner import OwnedConnection
    from otelwp_agent.transport.overload import Drops
    from otelwp_agent.transport.tls import ServerTls

READ_BUFFER = 256 * 1024
"""Maximum number of bytes of one read."""
MAX_RENDERED = 64
"""Maximum number of rendered responses that are kept for one error."""
SWEEP = 0.5
"""Seconds between checks for expired connections; also the precision of every timeout."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


_ACCEPTED = Response(202)
_NO_ROUTE = {403: "origin", 404: "not_found"}


class HttpServer:
    """Serves `routes` (path → `Route`) with `settings`.

    `on_refused(reason)` is called for every request that the server refuses. With `drops`, a request that exceeds the
    capacity is not refused: it is answered with success, dropped and counted there. `name` is the component's name, for
    messages.

    If a server of the same name already serves an address in this process, the new server shares the socket, and takes
    over the connections when the old one shuts down. So a reload refuses no client.
    """

    def __init__(  # noqa: PLR0913 - the routes, and the objects to which requests are reported
        self,
        settings: blocks.HttpServer,
        routes: Mapping[str, Route],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        on_refused: Callable[[str], None] = lambda _reason: None,
        drops: Drops | None = None,
        in_flight: InFlight | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Serve for the component `name`; bodies that are arriving count in `in_flight`.

        `gate` is what `Context.gate` returns for `settings`.
        """
        self.settings = settings
        self.routes = routes
        self.name = name
        self.log = log
        self.on_refused = on_refused
        self.drops = drops
        self.port = 0
        self.heads = HeadCache()
        self.plans = self.heads.plans
        self.memory = bytearray(READ_BUFFER)
        self.buffer = memoryview(self.memory)
        self.sessions: Connections[OwnedConnection] = Connections(
            settings.max_connections, settings.max_connections_per_peer
        )
        per_second = settings.max_requests_per_second_per_peer
        self.peer_rate = Rate(per_second, per_second) if per_second else None
        self.peer_rates = Gcra()
        self.gate = gate
        self.arrivals = Arrivals.of(InFlight() if in_flight is None else in_flight)
        self.limit = settings.max_request_body_size
        self._inflating: Decoding[Response] = Decoding(self.arrivals.in_flight, log)
        self.timeouts = ConnectionTimeouts(settings)
        self.now = time.monotonic()
        self.draining = False
        self.prefix = b""
        self._unauthenticated: dict[tuple[str, ...], dict[object, object]] = {}
        """Responses 401, which depend on the challenges, the route and the media type alone."""
        self._encodings = frozenset(settings.compression_algorithms)
        self._extra = "".join(f"{name}: {value}\r\n" for name, value in settings.response_headers.items())
        self._cors = CorsRules(settings.cors)
        self._listeners: Listeners[HttpServer] = Listeners(self)
        self._tls: ServerTls | None = None
        self._tls_checked = self.now
        self._sweeper: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def listening(self) -> bool:
        """Whether the server has been started and not shut down."""
        return bool(self._listeners)

    @property
    def address(self) -> str:
        """The first address: `host:port` with the bound port, or the unix path."""
        addresses = self._listeners.addresses
        return addresses[0] if addresses else str(self.settings.endpoint)

    @property
    def also(self) -> list[str]:
        """The other addresses."""
        return self._listeners.addresses[1:]

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        settings = self.settings
        require_gate(settings, self.gate, self.name)
        if settings.tls is not None:
            from otelwp_agent.transport.tls import ServerTls  # noqa: PLC0415 - only servers with TLS need it

            self._tls = ServerTls(settings.tls, name=self.name)
        await self._listeners.open(self._accept)
        self.port = self._listeners.port
        self._sweep()

    async def _accept(self, listening: socket.socket) -> Acceptor:
        """Start to accept connections on `listening`, which the acceptor then owns."""
        if self._tls is not None:
            from otelwp_agent.transport import http_tls  # noqa: PLC0415 - only servers with TLS need it

            context = self._tls.context

            def begin(connection: socket.socket, peer: str) -> None:
                http_tls.Handshake(self, connection, peer, http_tls.SecuredSession).begin(context)

            return http_tls.TlsAcceptor(self, listening, begin)
        loop, backlog = asyncio.get_running_loop(), self.settings.backlog
        return await loop.create_server(lambda: Session(self), sock=listening, backlog=backlog)

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop listening, answer the requests that have begun to arrive, and close all connections.

        This takes at most `grace` seconds. If a successor has taken over an address, it gets the open connections
        instead. Bodies that are being decompressed are delivered to their handlers before this returns.
        """
        if not self._listeners:
            return
        self._listeners.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        successor = self._listeners.successor
        if successor is not None and successor.listening:
            self._hand_over(successor)
        else:
            await self._close_sessions(grace)
        await self._inflating.drain()

    def _hand_over(self, successor: HttpServer) -> None:
        for connection in list(self.sessions):
            self.sessions.discard(connection)
            connection.server = successor
            successor.sessions.add(connection)
        successor._listeners.forget(self._listeners)

    async def _close_sessions(self, grace: float) -> None:
        self.draining = True
        for session in list(self.sessions):
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.sessions:
                    await self._wait_for_a_session_to_end()
        for session in list(self.sessions):
            session.abort()

    async def _wait_for_a_session_to_end(self) -> None:
        self._ended = asyncio.get_running_loop().create_future()
        await self._ended

    def session_ended(self, session: OwnedConnection) -> None:
        """Stop counting a connection, and wake up `shutdown` if it waits."""
        self.sessions.discard(session)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate.

        Connections of clients whose certificate is from a removed authority end after the request in progress.
        """
        if self._tls is None:
            return
        if self._tls.reload():
            for connection in list(self.sessions):
                connection.verify_again(self._tls.trusts)

    def plan(self, parsed: ParsedHead) -> RequestPlan:
        """Decide from its head how to handle a request."""
        method, headers = parsed.method, parsed.fields
        head = Head(method, parsed.target, headers)
        found = self.routes.get(head.path)
        extra = self._cors.headers(headers)
        route: Route | Response
        if found is None:
            route = text_error(404, f"nothing is served at this path; valid paths: {', '.join(sorted(self.routes))}")
        elif method == "OPTIONS" and extra:
            route = Response(204, headers=self._cors.preflight(headers, found))
        elif method not in found.methods:
            allow = ", ".join(found.methods)
            message = f"this path accepts {allow}, not {method}"
            route = text_error(405, message, (("Allow", allow),))
        elif found.same_origin and not extra and is_cross_origin(headers):
            route = CROSS_ORIGIN
        else:
            route = found
        return RequestPlan(
            head,
            route,
            int(headers.get("content-length", "0")),
            keep_alive=parsed.keep_alive and self.settings.keep_alives_enabled,
            extra=extra,
            chunked="transfer-encoding" in headers,
        )

    def respond(self, plan: RequestPlan, body: bytes, peer: str) -> Response | asyncio.Future[Response]:
        """Return the response to a complete request, or its future."""
        route = plan.route
        if isinstance(route, Response):
            self.on_refused(_NO_ROUTE.get(route.status, "method"))
            return route
        head = plan.head
        try:
            if head.encoding:
                if (
                    len(body) > INFLATE_OFF_LOOP or "," in head.encoding
                ):  # the second coding inflates what the first did
                    return self._respond_off_loop(route, head, body, peer)
                return self._deliver(route, head, peer, decompress(head.encoding, body, self.limit, self._encodings))
            return route.handler(Request(head, body, peer))
        except ConsumeError as error:
            return self.refusal(plan, error)
        except Exception:
            self.log.exception("request failed", server=self.name, path=head.path)
            self.on_refused("internal")
            return text_error(500, "internal error; the agent's log has the details")

    def _respond_off_loop(self, route: Route, head: Head, body: bytes, peer: str) -> asyncio.Future[Response]:
        """Decompress a large body in a thread, then call the handler; its bytes are in flight until it is answered."""
        in_flight, size = self.arrivals.in_flight, len(body)
        steps = in_one_step(decompress, head.encoding, body, self.limit, self._encodings)
        deliver = partial(self._deliver, route, head, peer)
        reserve = min(self.limit, OBJECTS * size)
        answer = self._inflating.run(steps, size, deliver, in_thread=True, reserve=reserve)
        in_flight.reserve(size)
        answer.add_done_callback(lambda _: in_flight.release(size))
        return answer

    def _deliver(self, route: Route, head: Head, peer: str, body: bytes) -> Response | asyncio.Future[Response]:
        """Call the handler; what was decompressed counts as in flight until it returns."""
        in_flight = self.arrivals.in_flight
        in_flight.reserve(len(body))
        try:
            return route.handler(Request(head, body, peer))
        finally:
            in_flight.release(len(body))

    def refused(self, error: ConsumeError, status: int) -> Response:
        """Count a request that is refused before its route is known; return the response."""
        self.on_refused(error.reason)
        return text_error(status, str(error))

    def refusal(self, plan: RequestPlan, error: ConsumeError, status: int = 0) -> Response:
        """Return the response to `error` in the route's own format.

        If the request is to be dropped, this is a success response.
        """
        if self.drops is not None and isinstance(error, RetryableError) and isinstance(plan.route, Route):
            items = self.drops.add(error, plan.head.headers.get("user-agent", ""))
            render = plan.route.render_dropped
            return _ACCEPTED if render is None else render(plan.head, items, str(error))
        self.on_refused(error.reason)
        if isinstance(error, RateLimitedError):
            known = error.rendered
        elif isinstance(error, UnauthenticatedError):
            known = self._unauthenticated.setdefault(error.challenges, {})
        else:
            return _rendered(plan, error, status)
        form = plan.form
        if form is None:
            form = plan.form = (_renderer(plan), plan.head.media_type)
        response = known.get(form)
        if not isinstance(response, Response):
            if len(known) >= MAX_RENDERED:  # clients choose the media type
                known.clear()
            response = known[form] = _rendered(plan, error, status)
        return response

    def _sweep(self) -> None:
        """Update the time and the Date header, close expired connections, and check the certificate files."""
        self.now = now = time.monotonic()
        self.prefix = f"Date: {_imf_date(time.gmtime())}\r\n{self._extra}".encode("latin-1")
        for session in [each for each in self.sessions if each.deadline < now]:
            session.time_is_up()
        for session in [each for each in self.sessions if each.old_at < now]:
            session.grow_old()
        if self.peer_rate is not None:
            self.peer_rates.forget_idle(now)
        tls = self.settings.tls
        if tls is not None and tls.reload_interval and now - self._tls_checked >= tls.reload_interval:
            self._tls_checked = now
            self._reload_tls_if_changed()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _reload_tls_if_changed(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self.reload_tls()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.warning("certificate not reloaded; the old one stays", server=self.name, error=str(error))


def _renderer(plan: RequestPlan) -> ErrorRenderer | None:
    return plan.route.render_error if isinstance(plan.route, Route) else None


def _rendered(plan: RequestPlan, error: ConsumeError, status: int = 0) -> Response:
    """Return the response to an error, in plain text if the route has no format of its own; 0 is the error's status."""
    status, render = status or statuses.http_status(error), _renderer(plan)
    if render is not None:
        return render(plan.head, status, error)
    return text_error(status, str(error), statuses.response_headers(error))


def _imf_date(at: time.struct_time) -> str:
    """Return a date in the format of RFC 9110, 5.6.7: in English, whatever the locale."""
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
