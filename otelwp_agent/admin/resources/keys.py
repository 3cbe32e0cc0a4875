"""`/tenants/{tenant}/keys`: create, list, revoke and rotate the API keys of a tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from otelwp_agent.admin.models import KEY_ID_PATTERN, WHOLE, ApiModel, ListPage, Name, PageQuery
from otelwp_agent.admin.operation import PREFIX, TENANT, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import UnknownNameError
from otelwp_agent.control.operations import keys as operations
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall
    from otelwp_agent.control.operations.keys import ApiKey, CreatedKey

_LONGEST = 10 * 365 * 86400
"""Longest life of a key in seconds, if it has an end."""


class KeyView(ApiModel):
    """An API key without its secret."""

    id: Annotated[str, Field(pattern=KEY_ID_PATTERN)]
    """Public id, which is a part of the key."""
    tenant: Name
    name: Name
    scopes: list[Scope]
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None


class NewKeyView(KeyView):
    """A new API key."""

    key: str | None
    """The key. It is shown only once: if the request is repeated with its `Idempotency-Key`, this is `null`."""


class KeyQuery(PageQuery):
    """The keys to list."""

    state: Literal["all", "live"] = "all"
    """`live`: only keys that are accepted, neither revoked nor expired."""


class NewKey(ApiModel):
    """An API key to create."""

    name: Name = operations.DEFAULT_NAME
    """At most two live keys of a tenant have the same name."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] = [Scope.INGEST]  # noqa: RUF012
    expires_in: Annotated[int, Field(strict=True, ge=1, le=_LONGEST), WHOLE] | None = None
    """Seconds until the key expires. Default: never."""


class KeyRotation(ApiModel):
    """How to rotate a key."""

    grace: Annotated[int, Field(strict=True, ge=0, le=_LONGEST), WHOLE] = int(operations.DEFAULT_GRACE.total_seconds())
    """Seconds for which the old key is accepted too; 0 revokes it."""


def _list(connection: Connection, call: ApiCall) -> object:
    query: KeyQuery = call.query
    return paged(
        query,
        lambda after, limit: operations.list_keys(
            connection, tenant=call.path[TENANT], after=after, limit=limit, live=query.state == "live"
        ),
        lambda key: key.id,
        lambda key: key.to_json(),
    )


def _create(connection: Connection, call: ApiCall) -> object:
    new: NewKey = call.body
    _check_scopes(call, new.scopes)
    expires = None if new.expires_in is None else datetime.now(UTC) + timedelta(seconds=new.expires_in)
    return _shown(
        operations.create_key(
            connection,
            call.actor,
            call.hasher,
            call.path[TENANT],
            name=new.name,
            scopes=new.scopes,
            expires=expires,
        )
    )


def _get(connection: Connection, call: ApiCall) -> object:
    return _find(connection, call).to_json()


def _revoke(connection: Connection, call: ApiCall) -> object:
    key = _find(connection, call)
    _check_scopes(call, key.scopes)
    return operations.revoke_key(connection, call.actor, key.id).to_json()


def _rotate(connection: Connection, call: ApiCall) -> object:
    key = _find(connection, call)
    _check_scopes(call, key.scopes)
    grace = timedelta(seconds=call.body.grace)
    return _shown(operations.rotate_key(connection, call.actor, call.hasher, key.id, grace=grace))


def _find(connection: Connection, call: ApiCall) -> ApiKey:
    """Return the key of the path; a key of another tenant is unknown."""
    key = operations.get_key(connection, call.path["key"])
    if key.tenant != call.path[TENANT]:
        raise UnknownNameError(f"tenant {call.path[TENANT]} has no API key {call.path['key']}")
    return key


def _check_scopes(call: ApiCall, scopes: Iterable[Scope]) -> None:
    """Refuse that an API key gets or replaces a key with scopes that it does not have itself."""
    principal = call.principal
    if principal.role is None and not {scope.value for scope in scopes} <= principal.scopes:
        raise ProblemError(403, "an API key may manage only keys whose scopes it has itself")


def _shown(created: CreatedKey) -> dict[str, object]:
    return {**created.key.to_json(), "key": created.text}


_ALL = f"{PREFIX}/tenants/{{{TENANT}}}/keys"
_ONE = f"{_ALL}/{{key}}"
_READ = (Scope.OPS_READ,)
_WRITE = (Scope.OPS_WRITE,)
_IDS = {TENANT: "tenant", "key": "id"}
OPERATIONS = (
    ApiOperation(
        "GET",
        _ALL,
        "listKeys",
        "List the API keys of a tenant, ordered by id",
        _list,
        scopes=_READ,
        query=KeyQuery,
        answer=ListPage[KeyView],
    ),
    ApiOperation(
        "POST",
        _ALL,
        "createKey",
        "Create an API key, which is shown only once",
        _create,
        role=Role.OPERATOR,
        scopes=_WRITE,
        body=NewKey,
        answer=NewKeyView,
        status=201,
        gives=_IDS,
        secret="key",  # noqa: S106 - the name of a field
    ),
    ApiOperation("GET", _ONE, "getKey", "Read an API key, without its secret", _get, scopes=_READ, answer=KeyView),
    ApiOperation(
        "POST",
        f"{_ONE}/revoke",
        "revokeKey",
        "Refuse an API key from now on",
        _revoke,
        role=Role.OPERATOR,
        scopes=_WRITE,
        answer=KeyView,
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/rotate",
        "rotateKey",
        "Create an API key that replaces this one",
        _rotate,
        role=Role.OPERATOR,
        scopes=_WRITE,
        body=KeyRotation,
        answer=NewKeyView,
        status=201,
        gives=_IDS,
        secret="key",  # noqa: S106 - the name of a field
    ),
)
