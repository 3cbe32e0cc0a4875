import email.utils
import time

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelwp_agent.errors import (
    ConsumeError,
    ForbiddenError,
    InternalError,
    MalformedError,
    Overloaded,
    PermanentError,
    RetryableError,
    TooLargeError,
    UnauthenticatedError,
)
from otelwp_agent.transport import status


@pytest.mark.parametrize(
    ("error", "http", "grpc", "wait"),
    [
        (MalformedError("x"), 400, code_pb2.INVALID_ARGUMENT, None),
        (PermanentError("x"), 400, code_pb2.INVALID_ARGUMENT, None),
        (TooLargeError("x"), 413, code_pb2.INVALID_ARGUMENT, None),
        (InternalError("x"), 500, code_pb2.INTERNAL, None),
        (Overloaded("x"), 429, code_pb2.RESOURCE_EXHAUSTED, 1.0),
        (Overloaded("x", retry_after=2.25), 429, code_pb2.RESOURCE_EXHAUSTED, 2.25),
        (RetryableError("x", retry_after=0.5), 503, code_pb2.UNAVAILABLE, 0.5),
    ],
)
def test_our_errors_in_both_protocols(error, http, grpc, wait):
    assert status.http_status(error) == http
    assert status.grpc_code(error) == grpc
    assert status.retry_after(error) == wait
    message = status.status_message(error)
    assert (message.code, message.message) == (grpc, "x")
    if wait is None:
        assert not message.details
    else:
        info = RetryInfo()
        assert message.details[0].Unpack(info)
        assert info.retry_delay.ToTimedelta().total_seconds() == wait


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, MalformedError),
        (401, PermanentError),
        (404, PermanentError),
        (413, TooLargeError),
        (429, Overloaded),
        (500, PermanentError),
        (502, RetryableError),
        (503, RetryableError),
        (504, RetryableError),
        (301, PermanentError),
    ],
)
def test_what_a_peers_http_status_means(code, kind):
    error = status.from_http(code, {}, b"because")
    assert type(error) is kind
    assert str(error) == f"HTTP {code}: because"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("-3", 0), ("soon", None), ("", None), ("inf", None), (email.utils.formatdate(0), 0)],
)
def test_retry_after_is_read_in_all_its_forms(value, seconds):
    error = status.from_http(503, {"retry-after": value}, b"")
    assert isinstance(error, RetryableError)
    assert error.retry_after == seconds


def test_a_retry_after_date_is_counted_from_now():
    error = status.from_http(429, {"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}, b"")
    assert isinstance(error, Overloaded)
    assert 50 < (error.retry_after or 0) <= 60


def test_what_a_peer_said_is_read_from_its_status_and_cut_short():
    body = Status(message="no such field").SerializeToString()
    assert str(status.from_http(400, {"content-type": "application/x-protobuf"}, body)) == "HTTP 400: no such field"
    assert str(status.from_http(400, {"content-type": "application/x-protobuf"}, b"\xff")) == "HTTP 400"
    assert len(str(status.from_http(500, {}, b"x" * 10_000))) < 300
    assert "https://new.example" in str(status.from_http(308, {"location": "https://new.example"}, b""))


def details(error: ConsumeError) -> bytes:
    return status.status_message(error).SerializeToString()


@pytest.mark.parametrize(
    ("code", "message", "detail", "kind", "wait"),
    [
        (code_pb2.UNAVAILABLE, "", None, RetryableError, None),
        (code_pb2.UNAVAILABLE, "", details(RetryableError("", retry_after=3)), RetryableError, 3),
        (code_pb2.DEADLINE_EXCEEDED, "", None, RetryableError, None),
        (code_pb2.CANCELLED, "", None, RetryableError, None),
        (code_pb2.ABORTED, "", None, RetryableError, None),
        (code_pb2.OUT_OF_RANGE, "", None, RetryableError, None),
        (code_pb2.DATA_LOSS, "", None, RetryableError, None),
        (code_pb2.RESOURCE_EXHAUSTED, "", None, PermanentError, None),
        (code_pb2.RESOURCE_EXHAUSTED, "", b"\xff\xff", PermanentError, None),
        (code_pb2.RESOURCE_EXHAUSTED, "", details(Overloaded("", retry_after=2)), Overloaded, 2),
        (code_pb2.RESOURCE_EXHAUSTED, "received message larger than max (5 vs. 4)", None, TooLargeError, None),
        (code_pb2.INVALID_ARGUMENT, "", None, MalformedError, None),
        (code_pb2.UNIMPLEMENTED, "", None, PermanentError, None),
        (99, "", None, PermanentError, None),
    ],
)
def test_what_a_peers_grpc_status_means(code, message, detail, kind, wait):
    error = status.from_grpc(code, message, detail)
    assert type(error) is kind
    assert getattr(error, "retry_after", None) == wait


def test_retry_after_headers_are_whole_seconds_rounded_up():
    assert [status.retry_after_header(seconds) for seconds in (0, 0.2, 1, 1.01)] == ["1", "1", "1", "2"]


KEY = "0123abcd4567ef890123abcd4567ef89"


def test_keys_in_a_path_that_the_peer_quotes_are_redacted():
    said = f"Cannot POST /v1/{KEY}/spans?api_key={KEY}, see https://u:{KEY}@api.example/{KEY}"
    for answer in (
        status.from_http(404, {}, said.encode()),
        status.from_http(404, {"content-type": "application/x-protobuf"}, Status(message=said).SerializeToString()),
        status.from_http(301, {"location": f"https://api.example/{KEY}"}, b""),
        status.from_http(500, {}, (b"x" * 190) + f" /{KEY}".encode()),
        status.from_grpc(12, said),
    ):
        assert KEY[:9] not in str(answer)
    assert str(status.from_http(404, {}, said.encode())) == (
        "HTTP 404: Cannot POST /v1/***/spans?api_key=***, see https://***@api.example/***"
    )


def test_authentication_errors_have_their_statuses_and_are_not_retried():
    missing = UnauthenticatedError("Bearer", 'Basic realm="x"')
    assert (status.http_status(missing), status.grpc_code(missing)) == (401, status.GrpcCode.UNAUTHENTICATED)
    assert status.response_headers(missing) == (
        ("WWW-Authenticate", "Bearer"),
        ("WWW-Authenticate", 'Basic realm="x"'),
    )
    forbidden = ForbiddenError("not from here", reason="banned")
    assert (status.http_status(forbidden), status.grpc_code(forbidden)) == (403, status.GrpcCode.PERMISSION_DENIED)
    assert status.response_headers(forbidden) == ()
    for error in (missing, forbidden):
        assert status.retry_after(error) is None
        assert not status.status_message(error).details
    assert status.response_headers(Overloaded("full", retry_after=1.2)) == (("Retry-After", "2"),)
