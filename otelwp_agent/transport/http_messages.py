"""Requests, responses and routes of HTTP handlers, without I/O, so that tests need no socket."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.model.batch import Origin

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.transport.authentication import Client
    from otelwp_agent.transport.limiting import RequestAllowance

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
PROTOBUF = "application/x-protobuf"
_END = b"\r\n"


class Head:
    """A request without its body. Shared by all requests with the same head, and never changed.

    Header names are lower case; the values of a repeated header are joined by `, `. `media_type` is the content type in
    lower case without its parameters.
    """

    __slots__ = ("allowance", "client", "encoding", "headers", "media_type", "memo", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Split the request line and read the headers."""
        self.method = method
        path, _, self.query = target.partition("?")
        self.path = path
        self.headers = headers
        self.media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.encoding = headers.get("content-encoding", "").strip()
        self.memo: Any = None
        """Storage for the handler: a value derived from this head, kept for later requests with the same head."""
        self.client: Client | None = None
        """The sender, if it was authenticated."""
        self.allowance: RequestAllowance | None = None
        """The allowance of the sender, if a rate limiter is configured."""

    def of_client(self, client: Client | None, headers: Mapping[str, str], allowance: RequestAllowance | None) -> Head:
        """Return a copy for the requests of `client`, with other `headers` and without a memo."""
        head = Head.__new__(Head)
        head.method, head.path, head.query = self.method, self.path, self.query
        head.media_type, head.encoding = self.media_type, self.encoding
        head.headers, head.client, head.allowance = headers, client, allowance
        head.memo = None
        return head

    @property
    def tenant(self) -> str:
        """The tenant of the client, "" if there is none."""
        return "" if self.client is None else self.client.tenant

    def origin(self, receiver: str) -> Origin:
        """Return the origin of a batch that `receiver` makes of a request with this head."""
        return Origin(receiver, "http", self.tenant, self.headers, self.allowance)


class Request:
    """A request: its head, its decompressed body and the address of its sender."""

    __slots__ = ("body", "head", "peer")

    def __init__(self, head: Head, body: bytes = b"", peer: str = "") -> None:
        """Combine the parts; `peer` is an IP address, or an empty string on a unix socket."""
        self.head = head
        self.body = body
        self.peer = peer

    @property
    def method(self) -> str:
        """The method, upper case."""
        return self.head.method

    @property
    def path(self) -> str:
        """The target up to the question mark."""
        return self.head.path

    @property
    def query(self) -> str:
        """The target after the question mark."""
        return self.head.query

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with lower-case names."""
        return self.head.headers


class Response:
    """A response. A response that never changes is built once and sent many times."""

    __slots__ = ("_message", "_prefix", "body", "headers", "rest", "start", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Prepare the bytes to send: `start`, the server's own headers, `rest`, then the body."""
        self.status = status
        self.body = body
        self.headers = (*((("Content-Type", content_type),) if content_type else ()), *headers)
        self.start = f"HTTP/1.1 {status} {_phrase(status)}\r\n".encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        self.rest = f"{lines}Content-Length: {len(body)}\r\n".encode("latin-1")
        self._prefix: bytes | None = None
        self._message = b""

    def message(self, prefix: bytes) -> bytes:
        """Return all bytes of the response, with the server's own headers `prefix`.

        They are joined once for each `prefix` object: a server has the same one for all responses of half a second.
        """
        if self._prefix is not prefix:
            self._prefix = prefix
            self._message = b"".join((self.start, prefix, self.rest, _END, self.body))
        return self._message


class ErrorRenderer(Protocol):
    """Renders an error of a route in the format and encoding of its clients."""

    def __call__(self, head: Head, status: int, error: ConsumeError) -> Response:
        """Return the response for `error`. Of the head, only the media type may matter."""


class DropRenderer(Protocol):
    """Renders the success response to a dropped request, in the encoding of the route's clients."""

    def __call__(self, head: Head, items: int, message: str) -> Response:
        """Return a success response.

        It may report that `items` (0: unknown) were dropped because of `message`.
        """


@dataclass(slots=True)
class Route:
    """The handler and the settings of one path."""

    handler: Callable[[Request], Response | asyncio.Future[Response]]
    """Called with the complete, decompressed request. May raise `ConsumeError`."""
    methods: tuple[str, ...] = ("POST",)
    admit: Callable[[], None] | None = None
    """Called before a body is read; raises `Overloaded` to refuse it."""
    render_error: ErrorRenderer | None = None
    """Plain text by default."""
    render_dropped: DropRenderer | None = None
    """The response if `on_overload` is `accept_and_drop`; by default 202 without a body."""
    same_origin: bool = False
    """Refuse requests that a browser sends for a page of another origin that `cors` does not allow.

    Needed if the handler accepts content types that a page may send without a preflight request (`text/plain`, forms).
    """


def text_error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an error response in plain text."""
    return Response(status, f"{message}\n".encode(), TEXT, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
