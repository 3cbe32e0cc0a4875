"""`/me`: the sender of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.admin.models import ApiModel
from otelwp_agent.admin.operation import PREFIX, ApiOperation
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.operations.operators import Role  # noqa: TC001 - a field's annotation

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall


class Me(ApiModel):
    """The operator or API key that sent the request."""

    name: str
    """`operator:<name>` or `key:<id>`, as in the audit log."""
    role: Role | None
    """The role of an operator."""
    tenant: str | None
    """The tenant of an API key."""
    scopes: list[Scope]
    """The scopes of an API key."""


def _me(connection: Connection, call: ApiCall) -> object:
    del connection
    principal = call.principal
    return {
        "name": principal.name,
        "role": None if principal.role is None else principal.role.value,
        "tenant": principal.tenant or None,
        "scopes": sorted(principal.scopes),
    }


OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/me",
        "getMe",
        "Show who sent this request",
        _me,
        scopes=(Scope.OPS_READ, Scope.OPS_WRITE, Scope.USAGE),
        answer=Me,
    ),
)
