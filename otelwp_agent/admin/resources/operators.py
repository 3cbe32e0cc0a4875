"""`/operators`: the users of the admin API, with their roles and tokens."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's annotation
from typing import TYPE_CHECKING

from otelwp_agent.admin.models import ApiModel, ListPage, Name, PageQuery
from otelwp_agent.admin.operation import PREFIX, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.control.errors import ConflictError
from otelwp_agent.control.operations import operators as operations
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall
    from otelwp_agent.control.operations.operators import NewToken


class OperatorView(ApiModel):
    """An operator without its token."""

    name: Name
    role: Role
    token_id: str
    """Public id, which is a part of the token."""
    token_created: datetime
    created: datetime


class NewTokenView(OperatorView):
    """An operator with a new token."""

    token: str | None
    """The token. It is shown only once: if the request is repeated with its `Idempotency-Key`, this is `null`."""


class NewOperator(ApiModel):
    """An operator to add."""

    name: Name
    role: Role


class RoleChange(ApiModel):
    """The new role of an operator."""

    role: Role


def _list(connection: Connection, call: ApiCall) -> object:
    return paged(
        call.query,
        lambda after, limit: operations.list_operators(connection, after=after, limit=limit),
        lambda operator: operator.name,
        lambda operator: operator.to_json(),
    )


def _add(connection: Connection, call: ApiCall) -> object:
    new: NewOperator = call.body
    return _shown(operations.add_operator(connection, call.actor, call.hasher, new.name, new.role))


def _get(connection: Connection, call: ApiCall) -> object:
    return operations.get_operator(connection, call.path["operator"]).to_json()


def _set_role(connection: Connection, call: ApiCall) -> object:
    if call.body.role is not Role.ADMIN:
        _check_other(call, "take the role of an admin from")
    return operations.set_role(connection, call.actor, call.path["operator"], call.body.role).to_json()


def _remove(connection: Connection, call: ApiCall) -> object:
    _check_other(call, "remove")
    operations.remove_operator(connection, call.actor, call.path["operator"])
    return None


def _rotate(connection: Connection, call: ApiCall) -> object:
    return _shown(operations.rotate_token(connection, call.actor, call.hasher, call.path["operator"]))


def _check_other(call: ApiCall, what: str) -> None:
    """Refuse a change after which perhaps no admin is left."""
    if call.principal.name == f"operator:{call.path['operator']}":
        raise ConflictError(f"an operator cannot {what} itself: ask another admin, or use `otelwp-agent operators`")


def _shown(new: NewToken) -> dict[str, object]:
    return {**new.operator.to_json(), "token": new.token}


_ONE = f"{PREFIX}/operators/{{operator}}"
OPERATIONS = (
    ApiOperation(
        "GET",
        f"{PREFIX}/operators",
        "listOperators",
        "List operators, ordered by name",
        _list,
        query=PageQuery,
        answer=ListPage[OperatorView],
    ),
    ApiOperation(
        "POST",
        f"{PREFIX}/operators",
        "addOperator",
        "Add an operator, whose token is shown only once",
        _add,
        role=Role.ADMIN,
        body=NewOperator,
        gives={"operator": "name"},
        answer=NewTokenView,
        status=201,
        secret="token",  # noqa: S106 - the name of a field
    ),
    ApiOperation("GET", _ONE, "getOperator", "Read an operator", _get, answer=OperatorView),
    ApiOperation(
        "PATCH",
        _ONE,
        "setRole",
        "Give an operator another role",
        _set_role,
        role=Role.ADMIN,
        body=RoleChange,
        answer=OperatorView,
    ),
    ApiOperation(
        "DELETE",
        _ONE,
        "removeOperator",
        "Remove an operator, whose token is refused from now on",
        _remove,
        role=Role.ADMIN,
        status=204,
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/rotate-token",
        "rotateToken",
        "Give an operator a new token; the old one is refused from now on",
        _rotate,
        role=Role.ADMIN,
        answer=NewTokenView,
        status=201,
        secret="token",  # noqa: S106 - the name of a field
    ),
)
