"""Convert errors of the agent to HTTP and gRPC statuses, and back.

OTLP 1.9 ("Failures", "OTLP/HTTP Response", "OTLP/gRPC Throttling"): only HTTP 429, 502, 503 and 504 may be retried. Of
the gRPC codes Canceled, DeadlineExceeded, Aborted, OutOfRange, Unavailable and DataLoss may be retried, and
ResourceExhausted only with a `RetryInfo`.
"""

from __future__ import annotations

import math
import time
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.errors import (
    ConsumeError,
    ForbiddenError,
    InternalError,
    MalformedError,
    Overloaded,
    PermanentError,
    RateLimitedError,
    RetryableError,
    ThrottledError,
    TooLargeError,
    UnauthenticatedError,
)
from otelwp_agent.telemetry.redaction import redact_text, redact_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.rpc.status_pb2 import Status

DEFAULT_RETRY_AFTER = 1.0
"""Seconds after which a sender may retry, if the error gives no time."""

_RETRYABLE_HTTP = frozenset({429, 502, 503, 504})


class GrpcCode(IntEnum):
    """The gRPC codes (grpc/doc/statuscodes.md), the same as in `google.rpc.Status`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_RETRYABLE_GRPC = frozenset(
    {
        GrpcCode.CANCELLED,
        GrpcCode.DEADLINE_EXCEEDED,
        GrpcCode.ABORTED,
        GrpcCode.OUT_OF_RANGE,
        GrpcCode.UNAVAILABLE,
        GrpcCode.DATA_LOSS,
    }
)
_HTTP: tuple[tuple[type[ConsumeError], int], ...] = (
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (ThrottledError, HTTPStatus.SERVICE_UNAVAILABLE),
    (Overloaded, HTTPStatus.TOO_MANY_REQUESTS),
    (RetryableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (InternalError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_GRPC: tuple[tuple[type[ConsumeError], GrpcCode], ...] = (
    (UnauthenticatedError, GrpcCode.UNAUTHENTICATED),
    (ForbiddenError, GrpcCode.PERMISSION_DENIED),
    (ThrottledError, GrpcCode.UNAVAILABLE),
    (Overloaded, GrpcCode.RESOURCE_EXHAUSTED),
    (RetryableError, GrpcCode.UNAVAILABLE),
    (InternalError, GrpcCode.INTERNAL),
)
"""The status of each kind of error; an error of several kinds gets the first."""
_EXCERPT = 200
"""Maximum number of characters of a peer's answer in a message."""
_LOOKED_AT = 2048
"""Characters of an answer that are redacted before it is cut; if cut first, part of a token could look like a word."""


def http_status(error: ConsumeError) -> int:
    """Return the HTTP status for `error`: 413, 401, 403, 400, 429 (overloaded), 503 (retry) or 500 (a bug)."""
    return next((status for kind, status in _HTTP if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)


def response_headers(error: ConsumeError) -> tuple[tuple[str, str], ...]:
    """Return the headers that an HTTP response to `error` needs: `Retry-After`, `X-RateLimit-…`, `WWW-Authenticate`."""
    if isinstance(error, UnauthenticatedError):
        return tuple(("WWW-Authenticate", challenge) for challenge in error.challenges)
    wait = retry_after(error)
    headers = (("Retry-After", retry_after_header(wait)),) if wait is not None else ()
    if isinstance(error, RateLimitedError):
        return (
            *headers,
            ("X-RateLimit-Limit", str(math.floor(error.quota))),
            ("X-RateLimit-Remaining", str(math.floor(error.remaining))),
            ("X-RateLimit-Reset", str(math.ceil(error.reset_after))),
        )
    return headers


def retry_after(error: ConsumeError) -> float | None:
    """Return the seconds after which a sender may retry, or `None` if it must not retry."""
    if not isinstance(error, RetryableError):
        return None
    return DEFAULT_RETRY_AFTER if error.retry_after is None else error.retry_after


def retry_after_header(seconds: float) -> str:
    """Return `seconds` as the value of a `Retry-After` header: whole, rounded up, at least 1 (RFC 9110, 10.2.3)."""
    return str(max(1, math.ceil(seconds)))


def grpc_code(error: ConsumeError) -> GrpcCode:
    """Return the gRPC code for `error`."""
    return next((code for kind, code in _GRPC if isinstance(error, kind)), GrpcCode.INVALID_ARGUMENT)


def status_message(error: ConsumeError) -> Status:
    """Return `google.rpc.Status` for `error`, with a `RetryInfo` if it may be retried."""
    from google.protobuf.duration_pb2 import Duration  # noqa: PLC0415 - needed only when a request is refused
    from google.rpc.error_details_pb2 import RetryInfo  # noqa: PLC0415
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    status = Status(code=grpc_code(error), message=str(error))
    seconds = retry_after(error)
    if seconds is not None:
        whole = int(seconds)
        delay = Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def from_http(status: int, headers: Mapping[str, str], body: bytes) -> ConsumeError:
    """Return the error for a peer's HTTP response with a status other than 2xx. Header names are lower case."""
    text = _readable(headers, body)
    message = f"HTTP {status}{f': {text}' if text else ''}"
    if status in _RETRYABLE_HTTP:
        wait = _seconds(headers.get("retry-after", ""))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return Overloaded(message, retry_after=wait, reason="http_429")
        return RetryableError(message, retry_after=wait, reason=f"http_{status}")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLargeError(message)
    if status == HTTPStatus.BAD_REQUEST:
        return MalformedError(message)
    if "location" in headers:
        message += f": redirect to {redact_url(headers['location'])}; if this is the right endpoint, configure it"
    return PermanentError(message, reason=f"http_{status}")


def from_grpc(code: int, message: str, details: bytes | None = None) -> ConsumeError:
    """Return the error for a peer's gRPC status; `details` is its `grpc-status-details-bin`."""
    wait = _retry_info(details)
    name = GrpcCode(code).name if code in GrpcCode.__members__.values() else str(code)
    text = f"gRPC {name}{f': {_excerpt(message)}' if message else ''}"
    if code == GrpcCode.RESOURCE_EXHAUSTED:
        if wait is not None:
            return Overloaded(text, retry_after=wait, reason="grpc_resource_exhausted")
        if "larger than max" in message or "too large" in message:
            return TooLargeError(text)
    elif code in _RETRYABLE_GRPC:
        return RetryableError(text, retry_after=wait, reason=f"grpc_{name.lower()}")
    elif code == GrpcCode.INVALID_ARGUMENT:
        return MalformedError(text)
    return PermanentError(text, reason=f"grpc_{name.lower()}")


def _readable(headers: Mapping[str, str], body: bytes) -> str:
    """Return the readable part of an error response, shortened: the message of a Status, or text."""
    kind = headers.get("content-type", "")
    if kind.startswith("application/x-protobuf"):
        from google.rpc.status_pb2 import Status  # noqa: PLC0415

        try:
            return _excerpt(str(Status.FromString(body).message))
        except DecodeError:
            return ""
    return _excerpt(body[:_LOOKED_AT].decode("utf-8", "replace").strip())


def _excerpt(message: str) -> str:
    """Return the beginning of a peer's message, redacted: it may quote the requested path, which may contain keys."""
    return redact_text(message[:_LOOKED_AT], paths=True)[:_EXCERPT]


def _seconds(value: str) -> float | None:
    """Return the seconds in a `Retry-After` header, which contains seconds or a date (RFC 9110, 10.2.3)."""
    text = value.strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        import email.utils  # noqa: PLC0415 - needs a megabyte, and only for a date

        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _retry_info(details: bytes | None) -> float | None:
    if not details:
        return None
    from google.rpc.error_details_pb2 import RetryInfo  # noqa: PLC0415
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    try:
        for detail in Status.FromString(details).details:
            info = RetryInfo()
            if detail.Unpack(info):
                delay = info.retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return None
    return None
