"""Post OTLP requests over HTTP: the headers and body of a batch, and what its answer says.

The exporters that send OTLP over HTTP share these parts. A batch that is encoded already is sent as it is: compressed
bodies with a `Content-Encoding`, sealed ones with their own media type.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from otelwp_agent.errors import PermanentError
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.redaction import redact_text
from otelwp_agent.transport.compression import ENCODINGS, compress
from otelwp_agent.transport.http_messages import JSON, PROTOBUF
from otelwp_agent.transport.status import from_http

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.config.types import Endpoint
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.http_connection import ClientResponse

SEALED_ENCODING = "sealed"
"""The last encoding of a batch whose body is a sealed envelope."""
SEALED = "application/vnd.otelwp.sealed"
"""Media type of a sealed envelope."""

_SUCCESS = range(200, 300)
_EXCERPT = 200
"""Number of characters of a backend's message that are logged."""

Posting = tuple[bytes, list[tuple[str, str]]]
"""A body, and the headers that describe it."""


class BodyEncoder:
    """Makes the body and its headers from a batch. It compresses plain bodies with `compression` and `level`."""

    def __init__(
        self, compression: str, level: int | None = None, convert: Callable[[Batch], bytes] | None = None
    ) -> None:
        """Send protobuf, or JSON if `convert` returns a batch's body as JSON."""
        self._compression = "" if compression == "none" else compression
        self._level = level
        self._convert = convert
        self._headers = [("Content-Type", PROTOBUF if convert is None else JSON)]
        if self._compression:
            coding = "deflate" if self._compression == "zlib" else self._compression
            self._headers.append(("Content-Encoding", coding))

    def encode(self, batch: Batch) -> Posting:
        """Return the body to post and its headers; raise `PermanentError` for encodings that HTTP cannot carry."""
        if batch.encodings:
            return batch.body, encoded_headers(batch, as_json=self._convert is not None)
        body = batch.body if self._convert is None else self._convert(batch)
        return compress(self._compression, body, self._level), self._headers


def encoded_headers(batch: Batch, *, as_json: bool = False) -> list[tuple[str, str]]:
    """Return the headers for the body of an encoded batch; raise `PermanentError` if there are none."""
    if batch.encodings[-1] == SEALED_ENCODING:
        return [("Content-Type", SEALED)]
    if as_json or not ENCODINGS.issuperset(batch.encodings):
        names = ", ".join(batch.encodings)
        why = "JSON cannot be made of it: set `encoding: proto`" if as_json else "HTTP has no name for this encoding"
        raise PermanentError(f"the batch is encoded ({names}), and {why}", reason="encoded")
    return [("Content-Type", PROTOBUF), ("Content-Encoding", ", ".join(batch.encodings))]


class AnswerReader:
    """Reads the answers of one exporter, and logs the messages of partial successes at a limited rate."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger, clock: Callable[[], float]) -> None:
        """Log with `log`."""
        self._log = log
        self._partial_log = LogLimit(clock)

    def read(self, batch: Batch, response: ClientResponse) -> int:
        """Return how many items of the batch the backend rejected; raise the error of an answer without success."""
        if response.status not in _SUCCESS:
            raise from_http(response.status, response.headers, response.body)
        return min(self._rejected(response), batch.items) if response.body else 0

    def _rejected(self, response: ClientResponse) -> int:
        """Return how many items a successful answer rejects."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == PROTOBUF:
            items, message = rejected(response.body)
        elif kind == JSON:
            items, message = _rejected_json(response.body)
        else:
            return 0  # not an OTLP response
        if (items or message) and (total := self._partial_log.take(max(items, 1))):
            self._log.warning(
                "partial success", rejected=total if items else 0, message=redact_text(message, paths=True)[:_EXCERPT]
            )
        return items


def request_path(endpoint: Endpoint, suffix: str) -> str:
    """Return the path to request: the path of the URL, unchanged, with `suffix` appended."""
    if endpoint.unix:
        return suffix or "/"
    url = urlsplit(endpoint.strip())
    path = (url.path.rstrip("/") if suffix else url.path) + suffix
    query = f"?{url.query}" if url.query else ""
    return quote((path or "/") + query, safe=string.punctuation)


def _rejected_json(body: bytes) -> tuple[int, str]:
    """Return the result of `otlp_response.rejected` for a JSON response."""
    import orjson  # noqa: PLC0415 - few servers answer in JSON to protobuf

    try:
        partial = orjson.loads(body)["partialSuccess"]
        items = next((int(value) for key, value in partial.items() if key.startswith("rejected")), 0)
        return max(items, 0), str(partial.get("errorMessage", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, ""  # the status reports that the request was accepted
