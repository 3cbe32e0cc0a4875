"""`/audit-log`: the changes of the control store, newest first."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's annotation
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from otelwp_agent.admin import pages
from otelwp_agent.admin.models import ApiModel, ListPage, PageQuery
from otelwp_agent.admin.operation import PREFIX, ApiOperation
from otelwp_agent.control import audit
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall


class AuditEvent(ApiModel):
    """A row of the audit log."""

    sequence: int
    time: datetime
    actor: str
    """The author: `operator:<name>`, `key:<id>` or `cli:<user>`."""
    action: str
    target: str
    """The changed object: the id of a tenant or key, or the name of a plan or operator."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str
    hash: str
    """SHA-256 of the row and of the hash before it."""


class AuditQuery(PageQuery):
    """The rows to list."""

    cursor: Annotated[str, Field(pattern=r"^(3[0-9]){1,18}$")] | None = None
    """Position at which to continue: use `next` of the answer before."""
    target: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")] | None = None
    """Only the rows about this target."""


def _list(connection: Connection, call: ApiCall) -> object:
    query: AuditQuery = call.query

    def read(after: str, limit: int) -> list[audit.LoggedEvent]:
        before = int(after) if after else None
        return audit.list_events(connection, before=before, limit=limit, target=query.target)

    return pages.paged(query, read, lambda event: str(event.sequence), lambda event: event.to_json())


OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/audit-log",
        "listAuditLog",
        "List changes, newest first",
        _list,
        role=Role.ADMIN,
        query=AuditQuery,
        answer=ListPage[AuditEvent],
    ),
)
