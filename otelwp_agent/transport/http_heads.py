"""Parse request heads, and remember what a head means for the next request that repeats it byte for byte.

A head is remembered only if the parser consumed exactly these bytes as one head. Heads with `Expect`,
`Transfer-Encoding` or `Upgrade` are never remembered: their requests need more than a head and a length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from otelwp_agent.errors import MalformedError

if TYPE_CHECKING:
    from otelwp_agent.transport.http_messages import Head, Response, Route

MAX_HEAD = 64 * 1024
"""Largest head in bytes; a larger one is answered 431."""
MAX_REMEMBERED_HEAD = 4096
"""Largest head in bytes that is remembered."""
MAX_REMEMBERED_FIELDS = 64
"""Most header fields of a head that is remembered: a field costs about 150 bytes of objects."""
REMEMBERED_HEADS = 1024
"""Heads remembered per server; when there are more, all are forgotten."""
REMEMBERED_BYTES = 2**20
"""Bytes of heads remembered per server; when there are more, all are forgotten."""

END_OF_HEAD = b"\r\n\r\n"
_NEVER_REMEMBERED = frozenset({"expect", "transfer-encoding", "upgrade"})
_TAIL = len(END_OF_HEAD) - 1


class RequestPlan:
    """What to do with a request, known from its head alone."""

    __slots__ = ("chunked", "extra", "head", "keep_alive", "length", "route")

    def __init__(  # noqa: PLR0913 - one record of everything that a head decides
        self,
        head: Head,
        route: Route | Response,
        length: int,
        *,
        keep_alive: bool,
        extra: bytes,
        chunked: bool = False,
    ) -> None:
        """Keep the decisions; `length` is the `Content-Length`, `extra` the response's CORS headers."""
        self.head = head
        self.route = route
        self.length = length
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.extra = extra


class ParsedHead:
    """A request line and headers; names are lower case, values of repeated headers are joined by `, `."""

    __slots__ = ("fields", "keep_alive", "method", "target")

    def __init__(self, method: str, target: str, fields: dict[str, str], *, keep_alive: bool) -> None:
        """Keep the parts; `keep_alive` is False too if the client wants another protocol after this request."""
        self.method = method
        self.target = target
        self.fields = fields
        self.keep_alive = keep_alive


class HeadReader:
    """Parses one head that arrives in any pieces, and finds its end."""

    __slots__ = ("_parser", "_sink", "_size", "_tail")

    def __init__(self) -> None:
        """Start before the request line; the caller has skipped blank lines."""
        self._sink = _HeadSink()
        self._parser = httptools.HttpRequestParser(self._sink)
        self._size = 0
        self._tail = b""  # the last bytes of an unfinished head, in which its end may begin

    @property
    def too_large(self) -> bool:
        """Whether the head is larger than `MAX_HEAD`."""
        return self._size > MAX_HEAD

    def end_in(self, data: bytes, start: int) -> int:
        """Return the position in `data` after the head's end, if that is in `data[start:]`, else -1."""
        tail = self._tail
        if tail:
            joined = tail + data[start : start + _TAIL]
            found = joined.find(END_OF_HEAD)
            if found >= 0:
                return start + found + len(END_OF_HEAD) - len(tail)
        found = data.find(END_OF_HEAD, start)
        return found + len(END_OF_HEAD) if found >= 0 else -1

    def feed(self, piece: bytes) -> None:
        """Parse a piece before the head's last byte; raise `MalformedError` if it is not HTTP."""
        self._size += len(piece)
        self._tail = (self._tail + piece[-_TAIL:])[-_TAIL:]
        if not self.too_large:
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserError as error:
                raise _malformed(str(error)) from error
        if self._sink.complete:
            raise _malformed("the head does not end with an empty line")

    def finish(self, piece: bytes) -> ParsedHead:
        """Parse the last piece, which ends with the empty line; raise `MalformedError` if the head ends elsewhere."""
        self._size += len(piece)
        if self.too_large:
            raise _malformed("the head is too large")
        return _finish(self._parser, self._sink, piece)


def parse_head(raw: bytes) -> ParsedHead:
    """Parse a whole head that ends with its first empty line; raise `MalformedError` if the parser sees another end."""
    sink = _HeadSink()
    return _finish(httptools.HttpRequestParser(sink), sink, raw)


def _finish(parser: httptools.HttpRequestParser, sink: _HeadSink, piece: bytes) -> ParsedHead:
    try:
        parser.feed_data(piece[:-1])
        early = sink.complete
        # Asked here because the parser forgets the connection's options once a message is complete.
        keep_alive = parser.should_keep_alive()
        parser.feed_data(piece[-1:])
    except httptools.HttpParserUpgrade:
        early = keep_alive = False
    except httptools.HttpParserError as error:
        raise _malformed(str(error)) from error
    if early or not sink.complete:
        raise _malformed("the head does not end with its first empty line")
    if sink.repeated:
        sink.join()
    method, target = parser.get_method().decode("latin-1"), sink.target.decode("latin-1")
    return ParsedHead(method, target, sink.fields, keep_alive=keep_alive)


class _HeadSink:
    """Collects what the parser reports. It does not know the parser: a reference cycle would wait for the collector."""

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
        """Join the values of repeated headers, once: joining each as it comes would be quadratic."""
        for key, values in self.repeated.items():
            self.fields[key] = ", ".join(values)


class HeadCache:
    """The heads that one server remembers, in `plans`."""

    __slots__ = ("_bytes", "_capacity", "plans")

    def __init__(self, capacity: int = REMEMBERED_HEADS) -> None:
        """Remember at most `capacity` heads; 0 remembers none."""
        self.plans: dict[bytes, RequestPlan] = {}
        self._capacity = capacity
        self._bytes = 0

    def remember(self, raw: bytes, plan: RequestPlan) -> None:
        """Remember that `raw`, which was parsed as exactly one head, means `plan`; ignore it if it must not be."""
        fields = plan.head.headers
        if len(raw) > MAX_REMEMBERED_HEAD or len(fields) > MAX_REMEMBERED_FIELDS or not self._capacity:
            return
        if not _NEVER_REMEMBERED.isdisjoint(fields):
            return
        plans = self.plans
        if len(plans) >= self._capacity or self._bytes + len(raw) > REMEMBERED_BYTES:
            plans.clear()
            self._bytes = 0
        plans[raw] = plan
        self._bytes += len(raw)


def _malformed(reason: str) -> MalformedError:
    return MalformedError(f"this is not HTTP/1.1: {reason}", reason="malformed_http")
