"""API keys of tenants: create, list, revoke and rotate.

A tenant has at most two live keys of one name, so that a key can be rotated: create the second one, move the senders
to it, revoke the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, insert, or_, select, update

from otelwp_agent.control import api_keys
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import tenants, values
from otelwp_agent.control.tables import KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection, Row

    from otelwp_agent.control.api_keys import Hasher

DEFAULT_NAME = "default"
DEFAULT_SCOPES = (Scope.INGEST,)
MAX_LIVE = 2
"""Live keys of one tenant and name."""
DEFAULT_GRACE = timedelta(days=1)
"""How long the old key is accepted after a rotation."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored, without its hash."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Return whether the key is accepted at the time `now`."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: datetime) -> str:
        """Return `live`, `revoked` or `expired`."""
        return "live" if self.is_live(now) else "expired" if self.revoked is None else "revoked"

    def to_json(self) -> dict[str, Any]:
        """Return the key for JSON output."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "name": self.name,
            "scopes": [scope.value for scope in self.scopes],
            "created": self.created.isoformat(),
            "expires": _iso(self.expires),
            "revoked": _iso(self.revoked),
            "last_used": _iso(self.last_used),
        }


class CreatedKey(NamedTuple):
    """A new key, and its text, which cannot be shown again."""

    key: ApiKey
    text: str


def parse_scopes(names: Collection[str]) -> tuple[Scope, ...]:
    """Return the scopes with these names, in their own order; raise `InvalidValueError` for an unknown one."""
    known = {scope.value for scope in Scope}
    unknown = sorted(set(names) - known)
    if unknown:
        raise InvalidValueError(f"{', '.join(unknown)}: no such scope; the scopes are {', '.join(sorted(known))}")
    return tuple(scope for scope in Scope if scope.value in names)


def create_key(  # noqa: PLR0913 - the columns of a key
    connection: Connection,
    actor: Actor,
    hasher: Hasher,
    tenant: str,
    *,
    name: str = DEFAULT_NAME,
    scopes: Collection[Scope] = DEFAULT_SCOPES,
    expires: datetime | None = None,
) -> CreatedKey:
    """Create an API key of a tenant."""
    change = Mutation(connection, actor)
    if not scopes:
        raise InvalidValueError("a key needs at least one scope")
    tenants.get_tenant(connection, tenant)
    return _create(
        change,
        hasher,
        tenant,
        values.name(name, "name of a key"),
        tuple(scope for scope in Scope if scope in scopes),
        values.future(expires, change.now),
        "key.create",
    )


def get_key(connection: Connection, id_: str) -> ApiKey:
    """Return a key."""
    row = connection.execute(select(KEYS).where(KEYS.c.id == _bare(id_))).one_or_none()
    if row is None:
        raise UnknownNameError(f"there is no API key with the id {_bare(id_)!r}: see `otelwp-agent api-keys list`")
    return _key(row)


def list_keys(
    connection: Connection, *, tenant: str | None = None, after: str = "", limit: int = 100, live: bool = False
) -> list[ApiKey]:
    """Return up to `limit` keys, ordered by id, with ids after `after`; those of a tenant, or live ones, if given."""
    query = select(KEYS).where(KEYS.c.id > after).order_by(KEYS.c.id).limit(values.page(limit))
    if tenant is not None:
        tenants.get_tenant(connection, tenant)
        query = query.where(KEYS.c.tenant == tenant)
    if live:
        query = query.where(KEYS.c.revoked.is_(None), or_(KEYS.c.expires.is_(None), KEYS.c.expires > datetime.now(UTC)))
    return [_key(row) for row in connection.execute(query)]


def revoke_key(connection: Connection, actor: Actor, id_: str) -> ApiKey:
    """Refuse a key from now on. Revoking a revoked key changes nothing."""
    change = Mutation(connection, actor)
    before = get_key(connection, id_)
    after = before
    if before.revoked is None:
        after = _replace(change, before, revoked=change.now)
    change.audit("key.revoke", before.id, before.to_json(), after.to_json())
    return after


def rotate_key(
    connection: Connection, actor: Actor, hasher: Hasher, id_: str, *, grace: timedelta = DEFAULT_GRACE
) -> CreatedKey:
    """Create a key with the tenant, name and scopes of the key `id_`, which expires after `grace` (0: is revoked)."""
    change = Mutation(connection, actor)
    if grace < timedelta(0):
        raise InvalidValueError("the grace period must not be negative")
    old = get_key(connection, id_)
    if not old.is_live(change.now):
        raise ConflictError(
            f"key {old.id} is {old.state(change.now)}: create a new key (`otelwp-agent api-keys create`)"
        )
    if grace:
        end = change.now + grace
        new = {"expires": end if old.expires is None else min(end, old.expires)}
    else:
        new = {"revoked": change.now}
    retired = _replace(change, old, **new)
    change.audit("key.retire", old.id, old.to_json(), retired.to_json())
    return _create(change, hasher, old.tenant, old.name, old.scopes, None, "key.rotate")


def record_use(connection: Connection, used: Mapping[str, datetime]) -> None:
    """Store when keys were last used, by their ids. This is no change: it is neither counted nor audited."""
    if used:
        connection.execute(
            update(KEYS).where(KEYS.c.id == bindparam("key_id")).values(last_used=bindparam("used")),
            [{"key_id": id_, "used": time} for id_, time in sorted(used.items())],
        )


def _create(  # noqa: PLR0913, PLR0917 - the columns of a key
    change: Mutation,
    hasher: Hasher,
    tenant: str,
    name: str,
    scopes: tuple[Scope, ...],
    expires: datetime | None,
    action: str,
) -> CreatedKey:
    query = select(KEYS).where(KEYS.c.tenant == tenant, KEYS.c.name == name).order_by(KEYS.c.created)
    live = [key for key in map(_key, change.connection.execute(query)) if key.is_live(change.now)]
    if len(live) >= MAX_LIVE:
        raise ConflictError(
            f"tenant {tenant} has {MAX_LIVE} live keys named {name} already ({', '.join(key.id for key in live)}): "
            "revoke one of them, or give another name"
        )
    new = api_keys.generate(hasher)
    key = ApiKey(new.id, tenant, name, scopes, change.now, expires, None, None)
    change.connection.execute(
        insert(KEYS).values(
            id=key.id,
            tenant=tenant,
            name=name,
            hash=new.hash,
            scopes=" ".join(scope.value for scope in scopes),
            created=key.created,
            expires=expires,
            changed=change.version,
        )
    )
    change.audit(action, key.id, None, key.to_json())
    return CreatedKey(key, new.text)


def _replace(change: Mutation, key: ApiKey, **new: datetime) -> ApiKey:
    change.connection.execute(update(KEYS).where(KEYS.c.id == key.id).values(**new, changed=change.version))
    return get_key(change.connection, key.id)


def _bare(id_: str) -> str:
    """Return the id of a key that may be given with its prefix, as in `wpo_live_abc…`, or as the whole key."""
    return id_.removeprefix(api_keys.API_KEY).partition("_")[0]


def _key(row: Row[Any]) -> ApiKey:
    scopes = parse_scopes(row.scopes.split())
    return ApiKey(row.id, row.tenant, row.name, scopes, row.created, row.expires, row.revoked, row.last_used)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
