"""Parse request heads, and cache the meaning of a head for later requests with the same bytes.

A head is cached only if the parser consumed exactly these bytes as one head. Heads with `Expect`, `Transfer-Encoding`
or `Upgrade` are never cached: their requests need more than a head and a length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from otelwp_agent.errors import MalformedError, TooLargeError

if TYPE_CHECKING:
    from otelwp_agent.transport.http_messages import Head, Response, Route
    from otelwp_agent.transport.limiting import RequestAllowance

MAX_HEAD = 64 * 1024
"""Maximum size of a head in bytes; a larger one is answered with 431."""
MAX_FIELDS = 256
"""Maximum number of header fields; more are answered with 431. Clients and proxies send 10 to 50. Parsing a field
takes a microsecond, `MAX_HEAD` bytes could hold 6000 of them, and a client can send hundreds of heads at once."""
MAX_REMEMBERED_HEAD = 4096
"""Maximum size in bytes of a head that is cached."""
MAX_REMEMBERED_FIELDS = 64
"""Maximum number of header fields of a head that is cached: a field needs about 150 bytes of objects."""
REMEMBERED_HEADS = 1024
"""Maximum number of cached heads per server; above it, the cache is cleared."""
REMEMBERED_BYTES = 2**20
"""Maximum number of bytes of cached heads per server; above it, the cache is cleared."""
REFUSED_HEADS = 64
"""Maximum number of cached heads of refused requests per server, in addition; above it, the oldest one is removed."""

END_OF_HEAD = b"\r\n\r\n"
_OTHER_END = "the head does not end with its first empty line"
_NEVER_REMEMBERED = frozenset({"expect", "transfer-encoding", "upgrade"})
_TAIL = len(END_OF_HEAD) - 1
_OTHER_LINES = 2
"""Lines of a head that are no header fields: the request line and the empty line."""


class HeadTooLargeError(TooLargeError):
    """The head has more than `MAX_HEAD` bytes or more than `MAX_FIELDS` header fields."""

    reason = "head_too_large"


class RequestPlan:
    """The decisions about a request that its head alone allows."""

    __slots__ = ("chunked", "extra", "form", "head", "keep_alive", "length", "passage", "route")

    def __init__(  # noqa: PLR0913 - one record of all decisions about a head
        self,
        head: Head,
        route: Route | Response,
        length: int,
        *,
        keep_alive: bool,
        extra: bytes,
        chunked: bool = False,
    ) -> None:
        """Keep the decisions; `length` is the `Content-Length`, `extra` the CORS headers of the response."""
        self.head = head
        self.route = route
        self.length = length
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.extra = extra
        self.form: object = None
        """Kept for the server: what an error's response depends on besides the error."""
        self.passage: Passage | None = None
        """Kept for the server's gate: the last passage with this head, if it is valid on every connection."""

    def with_head(self, head: Head) -> RequestPlan:
        """Return a copy with another head."""
        return RequestPlan(
            head, self.route, self.length, keep_alive=self.keep_alive, extra=self.extra, chunked=self.chunked
        )


class Passage:
    """A client that was admitted with one head, and the plan for its requests with this head."""

    __slots__ = ("allowance", "expires_at", "head", "plan", "version")

    def __init__(
        self, head: Head, plan: RequestPlan, version: int, expires_at: float, allowance: RequestAllowance | None
    ) -> None:
        """Keep the parts; `head` is the head that the client sent, `plan` has one without secrets."""
        self.head = head
        self.plan = plan
        self.version = version
        self.expires_at = expires_at
        self.allowance = allowance


class ParsedHead:
    """A request line and headers. Names are lower case; the values of repeated headers are joined by `, `."""

    __slots__ = ("fields", "keep_alive", "method", "target")

    def __init__(self, method: str, target: str, fields: dict[str, str], *, keep_alive: bool) -> None:
        """Keep the parts; `keep_alive` is also False if the client asks for another protocol after this request."""
        self.method = method
        self.target = target
        self.fields = fields
        self.keep_alive = keep_alive


class HeadReader:
    """Parses one head that arrives in any number of pieces, and finds its end."""

    __slots__ = ("_lines", "_parser", "_sink", "_size", "_tail")

    def __init__(self) -> None:
        """Start before the request line; the caller has skipped blank lines."""
        self._sink = _HeadSink()
        self._parser = httptools.HttpRequestParser(self._sink)
        self._size = 0
        self._lines = 0
        self._tail = b""  # the last bytes of an unfinished head: the end of the head may begin there

    def end_in(self, data: bytes, start: int) -> int:
        """Return the position in `data` after the end of the head, if it is in `data[start:]`, else -1."""
        tail = self._tail
        if tail:
            joined = tail + data[start : start + _TAIL]
            found = joined.find(END_OF_HEAD)
            if found >= 0:
                return start + found + len(END_OF_HEAD) - len(tail)
        found = data.find(END_OF_HEAD, start)
        return found + len(END_OF_HEAD) if found >= 0 else -1

    def feed(self, piece: bytes) -> None:
        """Parse a piece before the last byte of the head.

        Raises `HeadTooLargeError`, or `MalformedError` if it is not HTTP.
        """
        self._add(piece)
        self._tail = (self._tail + piece[-_TAIL:])[-_TAIL:]
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as error:  # raised at the end of the head, which must come later
            raise _malformed(_OTHER_END) from error
        except httptools.HttpParserError as error:
            raise _malformed(str(error)) from error
        if self._sink.complete:
            raise _malformed(_OTHER_END)

    def finish(self, piece: bytes) -> ParsedHead:
        """Parse the last piece, which ends with the empty line.

        Raises `HeadTooLargeError`, or `MalformedError` if the head ends elsewhere.
        """
        self._add(piece)
        return _finish(self._parser, self._sink, piece)

    def _add(self, piece: bytes) -> None:
        """Count a piece before it is parsed."""
        self._size += len(piece)
        if self._size > MAX_HEAD:
            raise HeadTooLargeError(f"the request's head is larger than {MAX_HEAD} bytes")
        self._lines += piece.count(b"\n")
        _check_lines(self._lines)


def parse_head(raw: bytes) -> ParsedHead:
    """Parse a complete head that ends with its first empty line.

    Raises `HeadTooLargeError`, or `MalformedError` if the parser finds another end.
    """
    _check_lines(raw.count(b"\n"))
    sink = _HeadSink()
    return _finish(httptools.HttpRequestParser(sink), sink, raw)


def _finish(parser: httptools.HttpRequestParser, sink: _HeadSink, piece: bytes) -> ParsedHead:
    early = True
    try:
        parser.feed_data(piece[:-1])
        early = sink.complete
        # Read now, because the parser clears the connection's options when a message is complete.
        keep_alive = parser.should_keep_alive()
        parser.feed_data(piece[-1:])
    except httptools.HttpParserUpgrade:  # raised at the end of the head
        keep_alive = False
    except httptools.HttpParserError as error:
        raise _malformed(str(error)) from error
    if early or not sink.complete:
        raise _malformed(_OTHER_END)
    if sink.repeated:
        sink.join()
    method, target = parser.get_method().decode("latin-1"), sink.target.decode("latin-1")
    return ParsedHead(method, target, sink.fields, keep_alive=keep_alive)


class _HeadSink:
    """Collects what the parser reports. It does not refer to the parser, to avoid a reference cycle."""

    __slots__ = ("complete", "fields", "repeated", "target")

    def __init__(self) -> None:
        self.target = b""
        self.complete = False
        self.fields: dict[str, str] = {}
        self.repeated: dict[str, list[str]] = {}

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields = self.fields
        if key in fields:
            self.repeated.setdefault(key, [fields[key]]).append(text)
        else:
            fields[key] = text

    def on_headers_complete(self) -> None:
        self.complete = True

    def join(self) -> None:
        """Join the values of repeated headers, once at the end: joining after each header would be quadratic."""
        for key, values in self.repeated.items():
            self.fields[key] = ", ".join(values)


class HeadCache:
    """The cached heads of one server, in `plans`.

    A sender without a valid credential can make any number of heads. Heads of refused requests are cached apart, so
    that they replace no others.
    """

    __slots__ = ("_bytes", "_capacity", "_refused", "plans")

    def __init__(self, capacity: int = REMEMBERED_HEADS) -> None:
        """Cache at most `capacity` heads of accepted requests; 0 caches none at all."""
        self.plans: dict[bytes, RequestPlan] = {}
        self._capacity = capacity
        self._bytes = 0
        self._refused: dict[bytes, None] = {}
        """The heads of refused requests, oldest first; they are in `plans` too."""

    def remember(self, raw: bytes, plan: RequestPlan) -> None:
        """Cache `plan` for `raw`, which was parsed as exactly one head; do nothing if the head must not be cached."""
        if not self._may_remember(raw, plan):
            return
        plans = self.plans
        if len(plans) - len(self._refused) >= self._capacity or self._bytes + len(raw) > REMEMBERED_BYTES:
            plans.clear()
            self._refused.clear()
            self._bytes = 0
        plans[raw] = plan
        self._bytes += len(raw)

    def remember_refused(self, raw: bytes, plan: RequestPlan) -> None:
        """Do the same for the head of a request that was refused."""
        refused = self._refused
        if not self._may_remember(raw, plan):
            return
        if len(refused) >= REFUSED_HEADS:
            oldest = next(iter(refused))
            del refused[oldest], self.plans[oldest]
        refused[raw] = None
        self.plans[raw] = plan

    def _may_remember(self, raw: bytes, plan: RequestPlan) -> bool:
        fields = plan.head.headers
        if len(raw) > MAX_REMEMBERED_HEAD or len(fields) > MAX_REMEMBERED_FIELDS or not self._capacity:
            return False
        return _NEVER_REMEMBERED.isdisjoint(fields)


def _check_lines(lines: int) -> None:
    """Raise `HeadTooLargeError` for the lines of a head that has too many fields."""
    if lines > MAX_FIELDS + _OTHER_LINES:
        raise HeadTooLargeError(f"the request has more than {MAX_FIELDS} header fields")


def _malformed(reason: str) -> MalformedError:
    return MalformedError(f"this is not HTTP/1.1: {reason}", reason="malformed_http")
