"""Decide which clients may use the page: all that reach it, or people and programs with a token.

A browser sends the token once (`POST /login`) and gets a cookie with the id of a session. Sessions are in memory: they
end after `SESSION` seconds, with the agent, and soon after the token of an operator was revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.errors import AgentError, ConsumeError, StartError
from otelwp_agent.limiting.addresses import peer_key
from otelwp_agent.limiting.bans import Bans
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.http_messages import JSON, Request, Response, Route

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.config.blocks import Ban
    from otelwp_agent.config.references import ControlStoreRef
    from otelwp_agent.transport.local_access import LocalAccess

    Handler = Callable[[Request], Response | asyncio.Future[Response]]

SESSION = 12 * 3600.0
"""Seconds after which a session ends."""
CHECK_AGAIN = 60.0
"""Seconds after which the token of an operator is looked up again."""
MOST_SESSIONS = 1000
COOKIE = "otelwp_ui"

HEADERS = (
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Headers of all responses."""


@dataclass(frozen=True, slots=True)
class UiUser:
    """A person or program that uses the page."""

    name: str = ""
    may_change: bool = True
    """Whether dead letters may be resent."""
    token: str = ""
    """Token of an operator, to be checked again."""
    until: float = float("inf")
    """End of the session, on the context's clock."""
    checked: float = 0.0


class Login:
    """Admits requests. Without `token` and `store`, all requests are admitted that `local` accepts."""

    def __init__(  # noqa: PLR0913 - its settings
        self,
        context: Context,
        local: LocalAccess,
        token: str | None,
        store: ControlStoreRef | None,
        ban: Ban,
        *,
        secure: bool,
    ) -> None:
        """Use the operators of the extension `store`; `secure` if the server has TLS. Raise `StartError`."""
        self._clock = context.clock
        self._log = context.log
        self._local = local
        self._token = token
        self._secure = secure
        self._identification = None if store is None else _identification(context, store)
        self._bans = Bans(ban.failures, ban.window, ban.duration)
        self._sessions: OrderedDict[str, UiUser] = OrderedDict()

    @property
    def required(self) -> bool:
        """Whether a login is needed; never on a unix socket, whose file permissions decide."""
        return self._token is not None or self._identification is not None

    def public(self, handler: Handler, methods: tuple[str, ...] = ("GET", "HEAD")) -> Route:
        """Return a route for all clients, also those that have not logged in."""
        return self._local.guard(Route(handler, methods=methods))

    def guard(self, handler: Handler, methods: tuple[str, ...] = ("GET",), *, changes: bool = False) -> Route:
        """Return a route for users that are logged in; with `changes`, only for those that may change something."""

        def guarded(request: Request) -> Response | asyncio.Future[Response]:
            if not self.required or not request.peer:
                return self._allowed(UiUser(), handler, request, changes=changes)
            return spawn(self._admitted(handler, request, changes=changes), name="admit a user of the UI")

        return self._local.guard(Route(guarded, methods=methods))

    def routes(self) -> dict[str, Route]:
        """Return the routes to log in and out, and to read the current session."""
        return {
            "/login": self.public(self._log_in, ("POST",)),
            "/logout": self.public(self._log_out, ("POST",)),
            "/api/session": self.public(self._session),
        }

    async def _admitted(self, handler: Handler, request: Request, *, changes: bool) -> Response:
        user = await self._user(request)
        if isinstance(user, Response):
            return user
        response = self._allowed(user, handler, request, changes=changes)
        return response if isinstance(response, Response) else await response

    def _allowed(
        self, user: UiUser, handler: Handler, request: Request, *, changes: bool
    ) -> Response | asyncio.Future[Response]:
        if changes and not user.may_change:
            return problem(403, "your role may only read: log in as an operator")
        if changes and request.head.media_type != JSON:
            return problem(415, f"send {JSON}")
        return handler(request)

    async def _user(self, request: Request) -> UiUser | Response:
        """Return the user of a request, or the response that refuses it."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._check(token.strip(), request.peer)
        key, now = _digest(_cookie(request)), self._clock()
        user = self._sessions.get(key)
        if user is None or user.until <= now:
            self._sessions.pop(key, None)
            return problem(401, "log in first")
        if user.token and now - user.checked >= CHECK_AGAIN:
            again = await self._check(user.token, request.peer)
            if isinstance(again, Response):
                self._sessions.pop(key, None)
                return again
            user = self._sessions[key] = replace(again, until=user.until)
        return user

    async def _check(self, token: str, peer: str) -> UiUser | Response:
        """Return the user with a token; else the response, the same one whatever is wrong with the token."""
        address, now = peer_key(peer), self._clock()
        if seconds := self._bans.banned(address, now):
            return problem(429, "too many failed logins from this address", (("Retry-After", str(int(seconds) + 1)),))
        if self._token is not None and hmac.compare_digest(token.encode(), self._token.encode()):
            return UiUser("token")
        if self._identification is not None:
            try:
                user: UiUser | None = await self._identification(token)
            except (AgentError, OSError) as error:
                return problem(503, f"the control store cannot be read: {error}")
            if user is not None:
                return replace(user, checked=now)
        if banned := self._bans.failed(address, now):
            self._log.warning("ui: address banned", peer=address, seconds=banned)
        return problem(401, "this token is not valid")

    def _log_in(self, request: Request) -> Response | asyncio.Future[Response]:
        if request.head.media_type != JSON:
            return problem(415, f"send {JSON}")
        try:
            token = orjson.loads(request.body)["token"]
        except (ValueError, KeyError, TypeError):
            token = None
        if not isinstance(token, str) or not token:
            return problem(400, 'send `{"token": "…"}`')
        return spawn(self._begin_session(token.strip(), request), name="log in to the UI")

    async def _begin_session(self, token: str, request: Request) -> Response:
        user = await self._check(token, request.peer)
        if isinstance(user, Response):
            return user
        id_ = secrets.token_urlsafe(32)
        self._sessions[_digest(id_)] = replace(user, until=self._clock() + SESSION)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return answer(_described(user, required=True), headers=(("Set-Cookie", self._cookie(id_, int(SESSION))),))

    def _log_out(self, request: Request) -> Response:
        self._sessions.pop(_digest(_cookie(request)), None)
        return answer({}, headers=(("Set-Cookie", self._cookie("", 0)),))

    def _session(self, request: Request) -> Response | asyncio.Future[Response]:
        if not self.required or not request.peer:
            return answer(_described(UiUser(), required=False))
        return spawn(self._current(request), name="read the session of the UI")

    async def _current(self, request: Request) -> Response:
        known = _cookie(request) or "authorization" in request.headers
        user = await self._user(request) if known else None
        return answer(_described(user if isinstance(user, UiUser) else None, required=True))

    def _cookie(self, value: str, age: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def answer(data: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:  # noqa: ANN401 - JSON
    """Return `data` as a JSON response that is not cached."""
    text = orjson.dumps(data, default=str)
    return Response(status, text, JSON, (("Cache-Control", "no-store"), *HEADERS, *headers))


def problem(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an error as JSON: `{"error": message}`."""
    return answer({"error": message}, status, headers)


def refusal(error: ConsumeError) -> Response:
    """Return the response to a request whose parameters are invalid."""
    return problem(400, str(error))


def _described(user: UiUser | None, *, required: bool) -> dict[str, Any]:
    return {
        "login": required,
        "user": None if user is None else user.name,
        "may_change": user is not None and user.may_change,
    }


def _identification(context: Context, store: ControlStoreRef) -> Callable[[str], Any]:
    """Return a coroutine function that returns the operator with a token, or `None`."""
    from otelwp_agent.control.access import ControlAccess  # noqa: PLC0415 - only with a control store

    access = context.extension(store, ControlAccess)  # type: ignore[type-abstract]
    try:
        from otelwp_agent.admin.identity import Identification  # noqa: PLC0415 - the packages may be missing
        from otelwp_agent.control.operations.operators import Role  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        raise StartError(
            f"extensions/{context.id}: {error.name} is not installed: install it with `pip install "
            "'otelwp-agent[control]'`"
        ) from error
    identification = Identification(access)

    async def identify(token: str) -> UiUser | None:
        found = await identification.identify({"authorization": f"Bearer {token}"})
        if found is None or found.role is None:  # API keys of tenants may not use the page
            return None
        return UiUser(found.name.partition(":")[2], found.role.includes(Role.OPERATOR), token)

    return identify


def _cookie(request: Request) -> str:
    """Return the id of the session in a request, or ""."""
    for pair in request.headers.get("cookie", "").replace(",", ";").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _digest(id_: str) -> str:
    return hashlib.sha256(id_.encode()).hexdigest()
