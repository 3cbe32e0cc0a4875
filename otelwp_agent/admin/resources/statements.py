"""`/tenants/{tenant}/statements` of the admin API: the statements of delivery of a tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from otelwp_agent.admin import pages
from otelwp_agent.admin.models import ApiModel, ListPage, PageQuery
from otelwp_agent.admin.operation import PREFIX, TENANT, ApiOperation
from otelwp_agent.control.api_keys import Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall
    from otelwp_agent.statements.store import StatementStore, StoredStatement


class StatementItem(ApiModel):
    """A statement of delivery."""

    sequence: int
    begin: datetime
    end: datetime
    hash: str
    """SHA-256 of `text`; the next statement contains it."""
    text: str
    """The signed statement. One of them in each line makes a file for `otelwp-agent statement verify`."""


class StatementQuery(PageQuery):
    """The statements to list."""

    cursor: Annotated[str, Field(pattern=r"^(3[0-9]){1,18}$")] | None = None
    """Position at which to continue: use `next` of the answer before."""


def operations(store: StatementStore) -> tuple[ApiOperation, ...]:
    """Return the operations that serve the statements of `store`."""

    def list_statements(connection: Connection, call: ApiCall) -> object:
        del connection  # statements have a database of their own
        tenant = call.path[TENANT]

        def read(after: str, limit: int) -> list[StoredStatement]:
            return store.statements(tenant, int(after) if after else 0, limit)

        return pages.paged(call.query, read, lambda each: str(each.sequence), _to_json)

    return (
        ApiOperation(
            "GET",
            f"{PREFIX}/tenants/{{{TENANT}}}/statements",
            "listStatements",
            "List the statements of delivery, oldest first",
            list_statements,
            scopes=(Scope.USAGE,),
            query=StatementQuery,
            answer=ListPage[StatementItem],
        ),
    )


def _to_json(each: StoredStatement) -> dict[str, object]:
    begin, end = (datetime.fromtimestamp(moment, UTC).isoformat() for moment in (each.begin, each.end))
    return {"sequence": each.sequence, "begin": begin, "end": end, "hash": each.hash, "text": each.text}
