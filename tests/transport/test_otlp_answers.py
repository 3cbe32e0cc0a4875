import json

import pytest
from google.rpc.status_pb2 import Status

from otelwp_agent.errors import MalformedError, Overloaded, PermanentError
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.errors import SealedError, SealedReason
from otelwp_agent.transport.http_messages import Head
from otelwp_agent.transport.otlp_answers import AGAIN, AGAIN_JSON, accepted, drop_renderer, render_error


def a_head(kind):
    return Head("POST", "/v1/traces", {"content-type": kind})


PROTOBUF, JSON, SEALED = (
    a_head(kind) for kind in ("application/x-protobuf", "application/json", "application/vnd.otelwp.sealed")
)


def test_accepted_in_the_encoding_of_the_request():
    assert (accepted(as_json=False).body, accepted(as_json=True).body) == (b"", b"{}")
    assert accepted(as_json=True, headers=(("X", "1"),)).headers == (("Content-Type", "application/json"), ("X", "1"))
    assert ("X-OTelWP-Duplicate", "true") in AGAIN.headers
    assert AGAIN_JSON.body == b"{}"


def test_errors_in_the_encoding_of_the_request():
    error = MalformedError("no protobuf")
    assert Status.FromString(render_error(PROTOBUF, 400, error).body).message == "no protobuf"
    assert json.loads(render_error(JSON, 400, error).body)["message"] == "no protobuf"
    problem = json.loads(render_error(SEALED, 400, error).body)
    assert (problem["reason"], problem["status"], problem["detail"]) == ("malformed", 400, "no protobuf")
    assert "refresh" not in problem


@pytest.mark.parametrize(
    ("reason", "status", "refresh"),
    [
        (SealedReason.UNKNOWN_KEY, 409, "key_set"),
        (SealedReason.WRONG_SUITE, 409, "key_set"),
        (SealedReason.ALTERED, 400, "key_set"),
        (SealedReason.STALE, 409, "time"),
        (SealedReason.OTHER_TENANT, 403, "credential"),
        (SealedReason.TOO_LARGE, 413, None),
        (SealedReason.MALFORMED, 400, None),
    ],
)
def test_a_refused_envelope_says_what_to_refresh(reason, status, refresh):
    answer = render_error(SEALED, 400, SealedError(reason, "why"))
    problem = json.loads(answer.body)
    assert answer.status == problem["status"] == status
    assert problem.get("refresh") == refresh
    assert answer.headers[0] == ("Content-Type", "application/problem+json")


def test_an_overload_says_when_to_send_an_envelope_again():
    answer = render_error(SEALED, 429, Overloaded("full", retry_after=7.0))
    assert answer.status == 429
    assert ("Retry-After", "7") in answer.headers
    assert json.loads(answer.body)["reason"] == "overloaded"
    assert json.loads(render_error(SEALED, 400, PermanentError("x", reason="new")).body)["reason"] == "new"


def test_dropped_requests_are_partial_successes():
    render = drop_renderer(Signal.LOGS)
    assert rejected(render(PROTOBUF, 3, "full").body) == (3, "full")
    assert json.loads(render(JSON, 3, "full").body) == {
        "partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "full"}
    }
    assert json.loads(render(JSON, 0, "full").body) == {"partialSuccess": {"errorMessage": "full"}}
