"""Answers to heartbeats and events: replies, and problem details (RFC 9457) for refusals."""

from __future__ import annotations

import random
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from otelwp_agent.admin import problems
from otelwp_agent.admin.problems import InvalidValue, ProblemError
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.http_messages import JSON, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.control.fleet.beats import RecordedBeat
    from otelwp_agent.control.fleet.signed_toggles import ToggleSigner
    from otelwp_agent.errors import ConsumeError
    from otelwp_agent.transport.http_messages import Head

SPREAD = 0.1
"""Share of the interval by which the next heartbeats are spread, so that sites do not send at the same time."""


class RefusedBeatError(Exception):
    """A heartbeat or event that is refused: the `reason` for metrics, and the problem to answer with."""

    def __init__(self, reason: str, status: int, detail: str, pointer: str = "") -> None:
        """Answer with `status`; `pointer` is the invalid value in the body."""
        super().__init__(detail)
        self.reason = reason
        errors = [InvalidValue(pointer=pointer, detail=detail)] if pointer else []
        self.problem = ProblemError(status, detail, errors=errors)

    @classmethod
    def of(cls, problem: ProblemError) -> RefusedBeatError:
        """Return the error for a body that is not valid JSON or has invalid values."""
        reason = "malformed" if problem.status == HTTPStatus.BAD_REQUEST else "invalid"
        error = cls(reason, problem.status, problem.detail)
        error.problem = problem
        return error


def replayed_beat() -> RefusedBeatError:
    """Return the error for a heartbeat that is older than the last one, or differs from it at the same time."""
    detail = (
        "another heartbeat with this `sent_at` or a later one was received before: send the time of each heartbeat, "
        "and repeat a heartbeat unchanged"
    )
    return RefusedBeatError("replayed", 409, detail, "#/sent_at")


def refused_event(refusal: str) -> RefusedBeatError:
    """Return the error for the refusal of a `RecordedEvent`."""
    if refusal == "unknown":
        detail = "this installation has not sent a heartbeat yet: send one before its first event"
        return RefusedBeatError("unknown_installation", 404, detail)
    if refusal == "foreign":
        detail = "this is not an installation of this merchant and CMS"
        return RefusedBeatError("foreign", 403, detail, "#/installation_id")
    return RefusedBeatError("replayed", 409, "an event with this `event_id` was received before", "#/event_id")


def heartbeat_reply(recorded: RecordedBeat, interval: float, signer: ToggleSigner | None, now: float) -> dict[str, Any]:
    """Return the answer to a heartbeat; the next one is expected after about `interval` seconds.

    `signer` signs the toggles, `now` is in seconds since 1970.
    """
    from otelwp_agent.control.fleet.toggles import KEYS  # noqa: PLC0415 - the packages may be missing

    toggles = dict.fromkeys(KEYS, False)
    toggles.update({toggle.key: toggle.value for toggle in recorded.toggles})
    spread = random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - not for cryptography
    reply = {
        "status": "ok",
        "installation_id": recorded.installation,
        "toggles": toggles,
        "notifications": [
            {"id": notice.id, "latest_version": notice.to_version, "priority": notice.priority, "notes": notice.notes}
            for notice in recorded.notices
        ],
        "next_heartbeat_seconds": round(interval * spread),
    }
    if signer is not None:
        reply["signed_toggles"] = signer.sign(recorded.installation, toggles, recorded.toggles, now)
    return reply


def success(value: Mapping[str, Any]) -> Response:
    """Return a successful answer."""
    return Response(200, orjson.dumps(value), JSON, (("Cache-Control", "no-store"),))


def problem_response(problem: ProblemError) -> Response:
    """Return the answer for a problem."""
    id_ = secrets.token_hex(8)
    headers = (*problem.headers, ("X-Request-Id", id_))
    return Response(problem.status, problem.body(id_), problems.MEDIA_TYPE, headers)


def render_error(head: Head, status: int, error: ConsumeError) -> Response:  # noqa: ARG001 - `ErrorRenderer`
    """Return the answer to a request that the server refuses."""
    code = status or statuses.http_status(error)
    return problem_response(ProblemError(code, str(error), headers=statuses.response_headers(error)))
