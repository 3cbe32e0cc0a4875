"""The heads of OTLP requests over HTTP, and the answers to requests in their own encoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import orjson

from otelwp_agent.model.otlp_response import partial_success
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.hints import DUPLICATE
from otelwp_agent.transport.http_messages import JSON, PROTOBUF, Response
from otelwp_agent.transport.otlp_posting import SEALED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.model.batch import Batch, Origin
    from otelwp_agent.model.stepwise_checking import StepwiseChecker
    from otelwp_agent.transport.hints import HeaderPairs
    from otelwp_agent.transport.http_messages import DropRenderer, Head

_REJECTED = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}
KEY_HEADER = "idempotency-key"
"""Header with the id that a sender has given to a request that is not sealed."""


class Form(IntEnum):
    """Form of the bodies of requests."""

    PROTOBUF = 0
    JSON = 1
    SEALED = 2


class OtlpSender(NamedTuple):
    """The properties of requests that their head determines."""

    plain: bool
    """Whether they are protobuf without an id, which nearly all are."""
    origin: Origin
    ok: Response
    """The answer to a request of which every item was accepted."""
    form: Form = Form.PROTOBUF
    key: str = ""
    """Id that the sender has given to the request; "" if none."""


@dataclass(frozen=True, slots=True)
class OtlpRoute:
    """The functions with which a receiver handles the requests of one signal."""

    signal: Signal
    check: Callable[[bytes], int]
    """Checks an OTLP request and returns the number of its items."""
    stepwise: StepwiseChecker
    """The same in steps, for large requests."""
    forward: Callable[[Batch, Head, Response], Response | asyncio.Future[Response]]
    """Forwards a batch to the pipelines; returns the answer for its sender."""
    count: Callable[[str], None]
    """Counts a refused request; the argument is the reason, a metric label."""


_OK_PROTOBUF = Response(200, b"", PROTOBUF)
_OK_JSON = Response(200, b"{}", JSON)


def accepted(*, as_json: bool, headers: HeaderPairs = ()) -> Response:
    """Return the answer to an accepted request, with more headers."""
    if headers:
        return Response(200, b"{}", JSON, headers) if as_json else Response(200, b"", PROTOBUF, headers)
    return _OK_JSON if as_json else _OK_PROTOBUF


def render_error(head: Head, status: int, error: ConsumeError) -> Response:
    """Answer with a `google.rpc.Status` in the request's encoding (OTLP 1.9, "OTLP/HTTP Response").

    The answer to an envelope is a problem that its sender understands.
    """
    if head.media_type == SEALED:
        return _problem(status, error)
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


PROBLEM = "application/problem+json"
"""Media type of problems (RFC 9457)."""
_REFRESH = {
    "unknown_key": "key_set",
    "wrong_suite": "key_set",
    "altered": "key_set",
    "stale": "time",
    "other_tenant": "credential",
    "plan_tier": "plan",
}
"""The thing that the sender of a refused envelope has to refresh, by reason (`sealing.errors`)."""
_STATUSES = {
    "unknown_key": HTTPStatus.CONFLICT,
    "wrong_suite": HTTPStatus.CONFLICT,
    "stale": HTTPStatus.CONFLICT,
    "other_tenant": HTTPStatus.FORBIDDEN,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}
"""Statuses by reason, where they are not those of the error. 409: the same content can be accepted if sealed again."""


def _problem(status: int, error: ConsumeError) -> Response:
    """Return the answer to a refused envelope, with the reason and what to refresh."""
    reason = error.reason
    status = _STATUSES.get(reason, status)
    problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": str(error)}
    problem |= {"reason": reason} | ({"refresh": _REFRESH[reason]} if reason in _REFRESH else {})
    return Response(int(status), orjson.dumps(problem), PROBLEM, statuses.response_headers(error))


AGAIN, AGAIN_JSON = [accepted(as_json=as_json, headers=(DUPLICATE,)) for as_json in (False, True)]
"""Answers to requests that were accepted before."""
