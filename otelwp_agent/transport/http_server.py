"""The HTTP/1.1 front that every HTTP receiver stands on: httptools parses, uvloop carries, routes decide.

`HttpServer` listens, tells the time and knows the routes; each of its clients is a `http_session.Session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError, RetryableError, StartError
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.http_messages import Head, Request, Response, Route, text_error
from otelwp_agent.transport.http_session import Plan, Session
from otelwp_agent.transport.listen import address_of, listen
from otelwp_agent.transport.local_access import CROSS_ORIGIN, is_cross_origin

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.config.types import Endpoint
    from otelwp_agent.transport.overload import Drops
    from otelwp_agent.transport.tls import ServerTls

REMEMBERED_HEADS = 1024
"""Heads kept per server; then the memory starts anew."""
READ_BUFFER = 256 * 1024
"""Bytes read at once, at most."""
SWEEP = 0.5
"""Seconds between looks for connections whose time is up; also the precision of every timeout."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ACCEPTED = Response(202)
_NO_ROUTE = {403: "origin", 404: "not_found"}


@dataclass(frozen=True, slots=True)
class _Listener:
    """One address that is listened on."""

    key: str
    endpoint: Endpoint
    socket: socket.socket
    server: asyncio.Server

    @property
    def port(self) -> int:
        """The port it got; 0 on a unix socket."""
        return 0 if self.endpoint.unix else self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return address_of(self.endpoint, self.port)


class HttpServer:
    """Serves `routes` (path → `Route`) as `settings` say. `on_refused(reason)` is told of every request refused here.

    With `drops` nothing is refused for lack of room: such requests get a success, and are entered there.
    `name` is the component's, for messages. A server that starts on an address which a server of the same name already
    serves in this process shares its socket, and inherits its connections when that one shuts down: so a reload refuses
    nobody.
    """

    _serving: dict[str, HttpServer] = {}  # noqa: RUF012 - by address, for the whole process, on purpose

    def __init__(  # noqa: PLR0913 - what it serves, and whom it tells of what
        self,
        settings: blocks.HttpServer,
        routes: Mapping[str, Route],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        on_refused: Callable[[str], None] = lambda _reason: None,
        drops: Drops | None = None,
    ) -> None:
        self.settings = settings
        self.routes = routes
        self.name = name
        self.log = log
        self.on_refused = on_refused
        self.drops = drops
        self.port = 0
        self.plans: dict[bytes, Plan] = {}
        self.memory = bytearray(READ_BUFFER)
        self.buffer = memoryview(self.memory)
        self.sessions: set[Session] = set()
        self.limit = settings.max_request_body_size
        self.encodings = frozenset(settings.compression_algorithms)
        self.header_timeout = settings.read_header_timeout or settings.read_timeout or float("inf")
        self.body_timeout = settings.read_timeout or float("inf")
        self.write_timeout = settings.write_timeout or float("inf")
        self.idle_timeout = settings.idle_timeout or settings.read_timeout or float("inf")
        self.now = time.monotonic()
        self.draining = False
        self.prefix = b""
        self._extra = "".join(f"{name}: {value}\r\n" for name, value in settings.response_headers.items())
        self._origins = _origin_pattern(settings.cors)
        self._listeners: list[_Listener] = []
        self._tls: ServerTls | None = None
        self._successor: HttpServer | None = None
        self._predecessors: dict[str, HttpServer] = {}  # by address; as long as they listen, too
        self._sweeper: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None
        self._tls_checked = self.now

    @property
    def listening(self) -> bool:
        """Whether it has been started and not shut down."""
        return bool(self._listeners)

    def hand_over(self, key: str, successor: HttpServer) -> socket.socket:
        """Return another handle of a listening socket; the successor gets the connections, too, at our shutdown."""
        self._successor = successor
        return next(each.socket for each in self._listeners if each.key == key).dup()

    @property
    def address(self) -> str:
        """What it listens on first: `host:port` with the port it got, or the unix path."""
        return self._listeners[0].address if self._listeners else str(self.settings.endpoint)

    @property
    def also(self) -> list[str]:
        """What it listens on beside `address`."""
        return [each.address for each in self._listeners[1:]]

    async def start(self) -> None:
        """Listen; raise `StartError` with nothing left open."""
        settings = self.settings
        if settings.tls is not None:
            from otelwp_agent.transport.tls import ServerTls  # noqa: PLC0415 - only who serves TLS pays for it

            self._tls = ServerTls(settings.tls, name=self.name)
        try:
            await self._listen(settings.endpoint)
            for endpoint in settings.additional_endpoints:
                await self._listen_too(endpoint)
        except BaseException:
            self._stop_listening()
            raise
        self.port = self._listeners[0].port
        self._sweep()

    async def _listen_too(self, endpoint: Endpoint) -> None:
        try:
            await self._listen(endpoint)
        except StartError as error:
            if getattr(error.__cause__, "errno", None) not in _NOT_HERE:
                raise
            self.log.warning("address left out", server=self.name, endpoint=str(endpoint), error=str(error))

    async def _listen(self, endpoint: Endpoint) -> None:
        settings, key = self.settings, str(endpoint)
        if endpoint.port == 0:
            key = f"{key}#{self.name}#{len(self._listeners)}"  # any port will do: no two components mean the same one
        before = self._serving.get(key)
        if before is not None:
            if before.name != self.name:
                raise StartError(f"{self.name}: cannot listen on {key}: {before.name} already does; give one another")
            sock = before.hand_over(key, self)
            self._predecessors[key] = before
        else:
            sock = listen(
                endpoint,
                name=self.name,
                backlog=settings.backlog,
                unix_mode=settings.unix_mode,
                unix_group=settings.unix_group,
            )
        server = await asyncio.get_running_loop().create_server(
            lambda: Session(self),
            sock=sock.dup(),
            backlog=settings.backlog,
            ssl=self._tls.context if self._tls is not None else None,
        )
        self._listeners.append(_Listener(key, endpoint, sock, server))
        self._serving[key] = self

    def _stop_listening(self) -> None:
        """Close every listening socket; a unix socket that no successor serves goes away."""
        listeners, self._listeners = self._listeners, []
        for each in listeners:
            each.server.close()
            each.socket.close()
            if self._serving.get(each.key) is not self:
                continue
            before = self._predecessors.pop(each.key, None)
            if before is not None:  # a reload that failed: it goes on serving
                self._serving[each.key] = before
                continue
            del self._serving[each.key]
            if each.endpoint.unix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each.endpoint.unix)  # noqa: PTH108 - beside the bind that made it

    async def shutdown(self, grace: float = 5.0) -> None:
        """Stop listening, answer what has begun to arrive for at most `grace` seconds, and close every connection.

        When a successor has taken over an address, connections go to it instead, open as they are.
        """
        if not self._listeners:
            return
        self._stop_listening()
        if self._sweeper is not None:
            self._sweeper.cancel()
        successor = self._successor
        if successor is not None and successor.listening:
            for session in self.sessions:
                session.server = successor
            successor.sessions |= self.sessions
            successor.forget(self)
            self.sessions.clear()
            return
        await self._close_sessions(grace)

    def forget(self, predecessor: HttpServer) -> None:
        """Serve alone what `predecessor` has served."""
        for key in [key for key, server in self._predecessors.items() if server is predecessor]:
            del self._predecessors[key]

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

    def session_ended(self, session: Session) -> None:
        """Forget a session; whoever waits for the last one is told."""
        self.sessions.discard(session)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def reload_tls(self) -> None:
        """Read the certificate files again; new connections get the new certificate."""
        if self._tls is not None:
            self._tls.reload()

    def plan(self, method: str, target: str, headers: dict[str, str], *, keep_alive: bool) -> Plan:
        """Work out what a head means."""
        head = Head(method, target, headers)
        found = self.routes.get(head.path)
        extra = b"" if self._origins is None else self._cors(headers)
        route: Route | Response
        if found is None:
            route = text_error(404, f"nothing is served at this path; there is: {', '.join(sorted(self.routes))}")
        elif method == "OPTIONS" and extra:
            route = Response(204, headers=self._preflight(headers, found))
        elif method not in found.methods:
            allow = ", ".join(found.methods)
            message = f"this path takes {allow}, not {method}"
            route = text_error(405, message, (("Allow", allow),))
        elif found.same_origin and not extra and is_cross_origin(headers):
            route = CROSS_ORIGIN
        else:
            route = found
        length = int(headers.get("content-length", "0"))
        return Plan(
            head,
            route,
            length,
            keep_alive=keep_alive and self.settings.keep_alives_enabled,
            extra=extra,
        )

    def remember(self, raw: bytes, plan: Plan) -> None:
        """Keep what a head means, for the next request that begins with it."""
        if len(self.plans) >= REMEMBERED_HEADS:
            self.plans.clear()
        self.plans[raw] = plan

    def respond(self, plan: Plan, body: bytes, peer: str) -> Response | asyncio.Future[Response]:
        """Return the answer to a whole request, or its future."""
        route = plan.route
        if isinstance(route, Response):
            self.on_refused(_NO_ROUTE.get(route.status, "method"))
            return route
        head = plan.head
        try:
            if head.encoding:
                body = decompress(head.encoding, body, self.limit, self.encodings)
            return route.handler(Request(head, body, peer))
        except ConsumeError as error:
            return self.refusal(plan, error)
        except Exception:
            self.log.exception("request failed", server=self.name, path=head.path)
            self.on_refused("internal")
            return text_error(500, "internal error; the agent's log has the details")

    def refusal(self, plan: Plan, error: ConsumeError, status: int = 0) -> Response:
        """Return the answer that says `error`, in the route's own way: a success, if it is to be dropped."""
        if self.drops is not None and isinstance(error, RetryableError) and isinstance(plan.route, Route):
            items = self.drops.add(error, plan.head.headers.get("user-agent", ""))
            render = plan.route.render_dropped
            return _ACCEPTED if render is None else render(plan.head, items, str(error))
        self.on_refused(error.reason)
        status = status or statuses.http_status(error)
        if isinstance(plan.route, Route) and plan.route.render_error is not None:
            return plan.route.render_error(plan.head, status, error)
        wait = statuses.retry_after(error)
        headers = (("Retry-After", statuses.retry_after_header(wait)),) if wait is not None else ()
        return text_error(status, str(error), headers)

    def _sweep(self) -> None:
        """Tell the time, refresh the Date header, close connections whose time is up, look at the certificate."""
        self.now = now = time.monotonic()
        self.prefix = f"Date: {_imf_date(time.gmtime())}\r\n{self._extra}".encode("latin-1")
        for session in [each for each in self.sessions if each.deadline < now]:
            session.time_is_up()
        tls = self.settings.tls
        if tls is not None and tls.reload_interval and now - self._tls_checked >= tls.reload_interval:
            self._tls_checked = now
            self._reload_tls_if_changed()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _reload_tls_if_changed(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self._tls.reload()
                self.log.info("certificate reloaded", server=self.name)
        except StartError as error:
            self.log.warning("certificate not reloaded; the old one stays", server=self.name, error=str(error))

    def _cors(self, headers: Mapping[str, str]) -> bytes:
        """Return the CORS headers for a request's origin, or nothing if it is not allowed."""
        origin, cors = headers.get("origin", ""), self.settings.cors
        if cors is None or self._origins is None or not origin or not self._origins.fullmatch(origin):
            return b""
        lines = f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n"
        if cors.exposed_headers:
            lines += f"Access-Control-Expose-Headers: {', '.join(cors.exposed_headers)}\r\n"
        return lines.encode("latin-1")

    def _preflight(self, headers: Mapping[str, str], route: Route) -> tuple[tuple[str, str], ...]:
        """Return what a browser wants to know before it sends (Fetch standard, CORS preflight)."""
        cors = self.settings.cors
        allowed = ["Accept", "Content-Type", "Content-Encoding", "X-Requested-With"]
        if cors is not None:
            allowed += cors.allowed_headers
            if "*" in cors.allowed_headers:
                allowed = [headers.get("access-control-request-headers", "*")]
        answer = [("Access-Control-Allow-Methods", ", ".join(route.methods))]
        answer.append(("Access-Control-Allow-Headers", ", ".join(allowed)))
        if cors is not None and cors.max_age:
            answer.append(("Access-Control-Max-Age", str(cors.max_age)))
        return tuple(answer)


def _imf_date(at: time.struct_time) -> str:
    """Return a date as RFC 9110, 5.6.7 has it: in English, whatever the locale."""
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


def _origin_pattern(cors: blocks.Cors | None) -> re.Pattern[str] | None:
    if cors is None or not cors.allowed_origins:
        return None
    return re.compile("|".join(re.escape(origin).replace(r"\*", ".*") for origin in cors.allowed_origins))
