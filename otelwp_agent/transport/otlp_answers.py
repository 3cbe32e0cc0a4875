"""Answers to OTLP requests over HTTP, in the encoding of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from otelwp_agent.model.otlp_response import partial_success
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.http_messages import JSON, PROTOBUF, Response

if TYPE_CHECKING:
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.transport.hints import HeaderPairs
    from otelwp_agent.transport.http_messages import DropRenderer, Head

_REJECTED = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}
_OK_PROTOBUF = Response(200, b"", PROTOBUF)
_OK_JSON = Response(200, b"{}", JSON)


def accepted(*, as_json: bool, headers: HeaderPairs = ()) -> Response:
    """Return the answer to an accepted request, with more headers."""
    if headers:
        return Response(200, b"{}", JSON, headers) if as_json else Response(200, b"", PROTOBUF, headers)
    return _OK_JSON if as_json else _OK_PROTOBUF


def render_error(head: Head, status: int, error: ConsumeError) -> Response:
    """Answer with a `google.rpc.Status` in the request's encoding (OTLP 1.9, "OTLP/HTTP Response")."""
    message = statuses.status_message(error)
    headers = statuses.response_headers(error)
    if head.media_type == JSON:
        from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - only for errors as JSON

        return Response(status, MessageToJson(message, indent=None).encode(), JSON, headers)
    return Response(status, message.SerializeToString(), PROTOBUF, headers)


def drop_renderer(signal: Signal) -> DropRenderer:
    """Return a function that renders the answer to a dropped request: a success that rejects all items.

    This is OTLP 1.9, "Partial Success". If the items were not counted, only the message is set: a rejected number of 0
    means a warning.
    """

    def render(head: Head, items: int, message: str) -> Response:
        if head.media_type == JSON:
            rejected = {_REJECTED[signal]: str(items)} if items else {}
            return Response(200, orjson.dumps({"partialSuccess": {**rejected, "errorMessage": message}}), JSON)
        return Response(200, partial_success(items, message), PROTOBUF)

    return render
