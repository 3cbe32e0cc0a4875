"""What an HTTP handler sees and answers: no I/O here, so that receivers are tested without a socket."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from otelwp_agent.errors import ConsumeError

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
PROTOBUF = "application/x-protobuf"


class Head:
    """Everything of a request but its body. Shared by all requests with the same head, and never changed.

    Header names are lower case; a repeated header's values are joined by `, `. `media_type` is the content type
    without its parameters, lower case.
    """

    __slots__ = ("encoding", "headers", "media_type", "memo", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Take a request line and headers apart."""
        self.method = method
        path, _, self.query = target.partition("?")
        self.path = path
        self.headers = headers
        self.media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.encoding = headers.get("content-encoding", "").strip()
        self.memo: Any = None
        """For the handler: what it worked out from this head, to be found again at the next request with it."""


class Request:
    """One request: its head, its body after decompression, and who sent it."""

    __slots__ = ("body", "head", "peer")

    def __init__(self, head: Head, body: bytes = b"", peer: str = "") -> None:
        """Put a request together; `peer` is an IP address, or "" on a unix socket."""
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
        """The headers, names in lower case."""
        return self.head.headers


class Response:
    """An answer. Built once and sent many times where it is always the same."""

    __slots__ = ("body", "headers", "rest", "start", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Lay out the bytes that go on the wire: `start`, then what the server adds, then `rest`, then the body."""
        self.status = status
        self.body = body
        self.headers = (*((("Content-Type", content_type),) if content_type else ()), *headers)
        self.start = f"HTTP/1.1 {status} {_phrase(status)}\r\n".encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        self.rest = f"{lines}Content-Length: {len(body)}\r\n".encode("latin-1")


class ErrorRenderer(Protocol):
    """How a route says that something is wrong, in the words and the encoding that its clients read."""

    def __call__(self, head: Head, status: int, error: ConsumeError) -> Response:
        """Return the answer for `error`."""


class DropRenderer(Protocol):
    """How a route says yes to a request that is dropped, in the encoding that its clients read."""

    def __call__(self, head: Head, items: int, message: str) -> Response:
        """Return a success, that may tell of `items` (0: nobody knows) dropped because of `message`."""


@dataclass(slots=True)
class Route:
    """What happens at one path."""

    handler: Callable[[Request], Response | asyncio.Future[Response]]
    """Called once the whole request has arrived, decompressed. May raise `ConsumeError`."""
    methods: tuple[str, ...] = ("POST",)
    admit: Callable[[], None] | None = None
    """Called before a body is read; raises `Overloaded` to refuse it."""
    render_error: ErrorRenderer | None = None
    """Plain text if left out."""
    render_dropped: DropRenderer | None = None
    """The answer where `on_overload` is `accept_and_drop`; 202 without a body if left out."""
    same_origin: bool = False
    """Refuse what a browser sends for a page of another origin that `cors` does not allow. Needed where the handler
    accepts content types that a page may send without asking first (`text/plain`, forms)."""


def text_error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an error that a person reads."""
    return Response(status, f"{message}\n".encode(), TEXT, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
