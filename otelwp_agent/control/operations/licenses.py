"""Licences of agents: set their terms, list, revoke and restore them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from otelwp_agent.control.errors import ConflictError, InvalidValueError, UnknownNameError
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import values
from otelwp_agent.control.tables import LICENSES
from otelwp_agent.licensing.terms import LicenseTerms

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from otelwp_agent.licensing.license import License


@dataclass(frozen=True, slots=True)
class StoredLicense:
    """A licence as stored."""

    id: str
    terms: LicenseTerms
    revoked: datetime | None
    revocation_reason: str
    created: datetime

    def signable(self, now: float, nonce: str | None = None) -> License:
        """Return the document to sign at the time `now` (seconds since 1970), for a request with `nonce`."""
        revoked = None if self.revoked is None else self.revocation_reason
        return self.terms.signable(self.id, now, revoked=revoked, nonce=nonce)

    def to_json(self) -> dict[str, Any]:
        """Return the licence for JSON output."""
        terms = self.terms
        return {
            "id": self.id,
            "customer": terms.customer,
            "tier": terms.tier,
            "features": list(terms.features),
            "limits": dict(terms.limits),
            "domains": list(terms.domains),
            "not_before": None if terms.not_before is None else terms.not_before.isoformat(),
            "expires": terms.expires.isoformat(),
            "lease_days": terms.lease_days,
            "revoked": None if self.revoked is None else self.revoked.isoformat(),
            "revocation_reason": self.revocation_reason,
            "created": self.created.isoformat(),
        }


def set_license(connection: Connection, actor: Actor, id_: str, terms: LicenseTerms) -> StoredLicense:
    """Create the licence `id_`, or replace its terms. A revoked licence stays revoked."""
    change = Mutation(connection, actor)
    before = find_license(connection, values.name(id_, "id of a licence"))
    terms = replace(terms, customer=values.title(terms.customer, "name of a customer"))
    after = StoredLicense(id_, terms, None, "", change.now) if before is None else replace(before, terms=terms)
    _check(after, change.now)
    row = {
        "customer": terms.customer,
        "tier": terms.tier,
        "features": list(terms.features),
        "limits": dict(terms.limits),
        "domains": list(terms.domains),
        "not_before": terms.not_before,
        "expires": terms.expires,
        "lease_days": terms.lease_days,
        "changed": change.version,
    }
    if before is None:
        new = {"id": id_, "created": change.now, "revoked": None, "revocation_reason": ""}
        connection.execute(insert(LICENSES).values(**new, **row))
    else:
        connection.execute(update(LICENSES).where(LICENSES.c.id == id_).values(**row))
    change.audit("license.set", id_, None if before is None else before.to_json(), after.to_json())
    return after


def get_license(connection: Connection, id_: str) -> StoredLicense:
    """Return a licence."""
    found = find_license(connection, id_)
    if found is None:
        raise UnknownNameError(f"there is no licence {id_!r}: see `otelwp-agent licenses list`")
    return found


def find_license(connection: Connection, id_: str) -> StoredLicense | None:
    """Return a licence, or `None` if it is unknown."""
    row = connection.execute(select(LICENSES).where(LICENSES.c.id == id_)).one_or_none()
    return None if row is None else _license(row)


def list_licenses(
    connection: Connection, *, after: str = "", limit: int = 100, customer: str | None = None
) -> list[StoredLicense]:
    """Return up to `limit` licences, ordered by id, with ids after `after`; those of a customer, if given."""
    query = select(LICENSES).where(LICENSES.c.id > after).order_by(LICENSES.c.id).limit(values.page(limit))
    if customer is not None:
        query = query.where(LICENSES.c.customer == customer)
    return [_license(row) for row in connection.execute(query)]


def revoke_license(connection: Connection, actor: Actor, id_: str, reason: str) -> StoredLicense:
    """Revoke a licence: its agents get the free tier with their next renewal, and show `reason`."""
    reason = values.title(reason, "reason")
    change = Mutation(connection, actor)
    before = get_license(connection, id_)
    if before.revoked is not None:
        raise ConflictError(f"licence {id_} is revoked already: {before.revocation_reason}")
    return _set(change, "license.revoke", before, revoked=change.now, revocation_reason=reason)


def restore_license(connection: Connection, actor: Actor, id_: str) -> StoredLicense:
    """Undo the revocation of a licence: its agents get their tier back with their next renewal."""
    change = Mutation(connection, actor)
    before = get_license(connection, id_)
    if before.revoked is None:
        raise ConflictError(f"licence {id_} is not revoked")
    return _set(change, "license.restore", before, revoked=None, revocation_reason="")


def _set(change: Mutation, action: str, before: StoredLicense, **new: Any) -> StoredLicense:  # noqa: ANN401 - columns
    after = replace(before, **new)
    change.connection.execute(update(LICENSES).where(LICENSES.c.id == before.id).values(**new, changed=change.version))
    change.audit(action, before.id, before.to_json(), after.to_json())
    return after


def _check(license_: StoredLicense, now: datetime) -> None:
    """Check that the licence can be signed; raise `InvalidValueError`, or `ConflictError` if no day is left."""
    terms = license_.terms
    if terms.not_before is not None and terms.not_before > terms.expires:
        raise ConflictError(f"not_before ({terms.not_before}) is after expires ({terms.expires}): change one of them")
    try:
        terms.check(license_.id, now.timestamp())
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _license(row: Row[Any]) -> StoredLicense:
    terms = LicenseTerms(
        customer=row.customer,
        tier=row.tier,
        expires=row.expires,
        not_before=row.not_before,
        features=tuple(row.features),
        limits=dict(row.limits),
        domains=tuple(row.domains),
        lease_days=row.lease_days,
    )
    return StoredLicense(row.id, terms, row.revoked, row.revocation_reason, row.created)
