"""Operators: people and programs that may use the admin API, with their roles and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, insert, select, update

from otelwp_agent.control import api_keys
from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import values
from otelwp_agent.control.tables import OPERATORS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from otelwp_agent.control.api_keys import Hasher


class Role(Enum):
    """Permissions of an operator. Each role includes the ones before it."""

    VIEWER = "viewer"
    """Read everything except secrets."""
    OPERATOR = "operator"
    """Change tenants, plans and keys."""
    ADMIN = "admin"
    """Also change operators."""

    def includes(self, needed: Role) -> bool:
        """Return whether an operator with this role may do what `needed` permits."""
        roles = [*Role]
        return roles.index(self) >= roles.index(needed)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator as stored, without the hash of the token."""

    name: str
    role: Role
    token_id: str
    token_created: datetime
    created: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the operator for JSON output."""
        return {
            "name": self.name,
            "role": self.role.value,
            "token_id": self.token_id,
            "token_created": self.token_created.isoformat(),
            "created": self.created.isoformat(),
        }


class NewToken(NamedTuple):
    """An operator and its new token, which cannot be shown again."""

    operator: Operator
    token: str


def parse_role(text: str) -> Role:
    """Return the role with this name; raise `InvalidValueError`."""
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(role.value for role in Role)
        raise InvalidValueError(f"{text!r} is not a role: use {roles}") from None


def add_operator(connection: Connection, actor: Actor, hasher: Hasher, name: str, role: Role) -> NewToken:
    """Add an operator and create its token."""
    change = Mutation(connection, actor)
    values.name(name, "name of an operator")
    if _find(connection, name) is not None:
        raise ConflictError(f"there is an operator {name} already: give another name, or change its role or token")
    new = api_keys.generate(hasher, api_keys.OPERATOR_TOKEN)
    operator = Operator(name, role, new.id, change.now, change.now)
    connection.execute(
        insert(OPERATORS).values(
            name=name,
            role=role.value,
            token_id=new.id,
            token_hash=new.hash,
            token_created=change.now,
            created=change.now,
        )
    )
    change.audit("operator.add", name, None, operator.to_json())
    return NewToken(operator, new.text)


def get_operator(connection: Connection, name: str) -> Operator:
    """Return an operator."""
    operator = _find(connection, name)
    if operator is None:
        raise UnknownNameError(f"there is no operator {name!r}: see `otelwp-agent operators list`")
    return operator


def list_operators(connection: Connection, *, after: str = "", limit: int = values.MAX_PAGE) -> list[Operator]:
    """Return up to `limit` operators, ordered by name, with names after `after`."""
    query = select(OPERATORS).where(OPERATORS.c.name > after).order_by(OPERATORS.c.name).limit(values.page(limit))
    return [_operator(row) for row in connection.execute(query)]


def remove_operator(connection: Connection, actor: Actor, name: str) -> None:
    """Remove an operator; its token is refused from now on."""
    change = Mutation(connection, actor)
    operator = get_operator(connection, name)
    connection.execute(delete(OPERATORS).where(OPERATORS.c.name == name))
    change.audit("operator.remove", name, operator.to_json())


def set_role(connection: Connection, actor: Actor, name: str, role: Role) -> Operator:
    """Give an operator another role."""
    change = Mutation(connection, actor)
    before = get_operator(connection, name)
    connection.execute(update(OPERATORS).where(OPERATORS.c.name == name).values(role=role.value))
    after = get_operator(connection, name)
    change.audit("operator.set_role", name, before.to_json(), after.to_json())
    return after


def rotate_token(connection: Connection, actor: Actor, hasher: Hasher, name: str) -> NewToken:
    """Give an operator a new token; the old one is refused from now on."""
    change = Mutation(connection, actor)
    before = get_operator(connection, name)
    new = api_keys.generate(hasher, api_keys.OPERATOR_TOKEN)
    connection.execute(
        update(OPERATORS)
        .where(OPERATORS.c.name == name)
        .values(token_id=new.id, token_hash=new.hash, token_created=change.now)
    )
    after = get_operator(connection, name)
    change.audit("operator.rotate_token", name, before.to_json(), after.to_json())
    return NewToken(after, new.text)


def authenticate_operator(connection: Connection, hasher: Hasher, token: str) -> Operator | None:
    """Return the operator with this token, or `None` if the token is invalid."""
    id_ = api_keys.parse(token, api_keys.OPERATOR_TOKEN)
    if id_ is None:
        return None
    row = connection.execute(select(OPERATORS).where(OPERATORS.c.token_id == id_)).one_or_none()
    if row is None or not hasher.matches(token, row.token_hash):
        return None
    return _operator(row)


def _find(connection: Connection, name: str) -> Operator | None:
    row = connection.execute(select(OPERATORS).where(OPERATORS.c.name == name)).one_or_none()
    return None if row is None else _operator(row)


def _operator(row: Row[Any]) -> Operator:
    return Operator(row.name, Role(row.role), row.token_id, row.token_created, row.created)
