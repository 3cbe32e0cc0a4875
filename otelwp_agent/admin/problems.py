"""Errors of the admin API as problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import Field

from otelwp_agent.admin.models import ApiModel
from otelwp_agent.control.errors import (
    ConflictError,
    InvalidValueError,
    OperationError,
    StoreError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

MEDIA_TYPE = "application/problem+json"
STORE_RETRY_AFTER = 5
"""Seconds after which a client may try again while the store is unavailable."""
MAX_ERRORS = 20
"""Invalid values that one answer lists."""

_STATUS: dict[type[OperationError], int] = {UnknownNameError: 404, ConflictError: 409, InvalidValueError: 422}


class InvalidValue(ApiModel):
    """One invalid value of a request."""

    pointer: str | None = None
    """JSON pointer to the value in the body, as a URI fragment (`#/name`)."""
    parameter: str | None = None
    """Name of the query parameter or header."""
    detail: str
    """The problem with the value."""


class ProblemDetails(ApiModel):
    """An error, in the form of RFC 9457."""

    type: str
    """`about:blank`: the status says what kind of problem it is."""
    title: str
    """The name of the status."""
    status: int = Field(ge=400, le=599)
    """The HTTP status."""
    detail: str
    """The problem, and how to solve it."""
    request_id: str
    """Id of the request, also in the header `X-Request-Id` and in the audit log."""
    errors: list[InvalidValue] | None = None
    """The invalid values."""


class ProblemError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[InvalidValue] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answer with `status`; `detail` says what is wrong and what to do."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)[:MAX_ERRORS]
        self.headers = tuple(headers)

    def body(self, request_id: str) -> bytes:
        """Return the answer's body."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.errors:
            problem["errors"] = [each.model_dump(exclude_none=True) for each in self.errors]
        return orjson.dumps(problem)


def of_operation(error: OperationError) -> ProblemError:
    """Return the problem for an operation that was refused."""
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return ProblemError(status, str(error))


def of_store(error: StoreError) -> ProblemError:
    """Return the problem for a store that cannot be used now."""
    return ProblemError(503, str(error), headers=(("Retry-After", str(STORE_RETRY_AFTER)),))


def of_body(error: ValidationError) -> ProblemError:
    """Return the problem for a body that is not JSON, or has invalid values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found and found[0]["type"] == "json_invalid":
        return ProblemError(400, f"the body is not valid JSON: {found[0]['msg']}")
    return ProblemError(
        422,
        "the body has invalid values: see `errors`",
        errors=[InvalidValue(pointer=_pointer(each["loc"]), detail=each["msg"]) for each in found],
    )


def of_query(error: ValidationError) -> ProblemError:
    """Return the problem for invalid query parameters."""
    return ProblemError(
        422,
        "the query has invalid parameters: see `errors`",
        errors=[
            InvalidValue(parameter=str(each["loc"][0]) if each["loc"] else None, detail=each["msg"])
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        ],
    )


def _pointer(location: Sequence[int | str]) -> str:
    """Return a location in the body as a JSON pointer (RFC 6901)."""
    words = (str(word).replace("~", "~0").replace("/", "~1") for word in location if word != "[key]")
    return "#" + "".join(f"/{word}" for word in words)
