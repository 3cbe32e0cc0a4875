"""Installations of plugins: find and list them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from otelwp_agent.control.errors import InvalidValueError, UnknownNameError
from otelwp_agent.control.fleet.status import STATUSES
from otelwp_agent.control.fleet.tables import INSTALLATIONS
from otelwp_agent.control.fleet.versions import latest_versions
from otelwp_agent.control.operations import values
from otelwp_agent.control.tables import TENANTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

EMAIL = "email"
"""Attribute of a tenant with its address, for `merchant_email`."""
_NAMESPACE = uuid.UUID("6f1d3c0e-3f0b-5b43-9a27-0d5f7f0c1a65")


def installation_id(tenant: str, cms: str, environment: str, site_id: str) -> str:
    """Return the id of the installation that these values identify."""
    return str(uuid.uuid5(_NAMESPACE, f"{tenant}\n{cms}\n{environment}\n{site_id}"))


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation as stored, with the name of its tenant and the latest version for its CMS."""

    id: str
    tenant: str
    tenant_name: str
    tenant_email: str
    cms: str
    environment: str
    site_id: str
    plugin_version: str
    latest_version: str | None
    sdk_language: str
    cms_version: str
    php_version: str
    server_info: Mapping[str, str]
    errors_last_hour: float
    status: str
    error_rate: float
    first_seen: datetime
    last_heartbeat: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a list, as JSON."""
        return {
            "id": self.id,
            "merchant_id": self.tenant,
            "merchant_name": self.tenant_name,
            "merchant_email": self.tenant_email,
            "cms": self.cms,
            "plugin_version": self.plugin_version,
            "latest_version": self.latest_version,
            "status": self.status,
            "error_rate": self.error_rate,
            "last_heartbeat": self.last_heartbeat.isoformat(),
            "environment": self.environment,
            "site_id": self.site_id,
        }

    def details(self) -> dict[str, Any]:
        """Return all fields, as JSON."""
        return {
            **self.to_json(),
            "sdk_language": self.sdk_language,
            "cms_version": self.cms_version,
            "php_version": self.php_version,
            "server_info": dict(self.server_info),
            "errors_last_hour": self.errors_last_hour,
            "first_seen": self.first_seen.isoformat(),
        }


_JOINED = select(INSTALLATIONS, TENANTS.c.name, TENANTS.c.attributes).join(
    TENANTS, TENANTS.c.id == INSTALLATIONS.c.tenant
)


def get_installation(connection: Connection, id_: str) -> Installation:
    """Return an installation."""
    row = connection.execute(_JOINED.where(INSTALLATIONS.c.id == id_)).one_or_none()
    if row is None:
        raise UnknownNameError(f"there is no installation {id_!r:.80}: see `otelwp-agent fleet list`")
    return _installation(row, latest_versions(connection))


def list_installations(  # noqa: PLR0913 - the filters
    connection: Connection,
    *,
    after: str = "",
    limit: int = 100,
    status: str | None = None,
    cms: str | None = None,
    tenant: str | None = None,
) -> list[Installation]:
    """Return up to `limit` installations, ordered by id, with ids after `after`, that match all filters."""
    query = _JOINED.where(INSTALLATIONS.c.id > after).order_by(INSTALLATIONS.c.id).limit(values.page(limit))
    if status is not None:
        if status not in STATUSES:
            raise InvalidValueError(f"{status!r:.80} is not a status: use {', '.join(STATUSES)}")
        query = query.where(INSTALLATIONS.c.status == status)
    if cms is not None:
        query = query.where(INSTALLATIONS.c.cms == cms)
    if tenant is not None:
        query = query.where(INSTALLATIONS.c.tenant == tenant)
    latest = latest_versions(connection)
    return [_installation(row, latest) for row in connection.execute(query)]


def _installation(row: Row[Any], latest: Mapping[str, str]) -> Installation:
    return Installation(
        id=row.id,
        tenant=row.tenant,
        tenant_name=row.name,
        tenant_email=str(row.attributes.get(EMAIL, "")),
        cms=row.cms,
        environment=row.environment,
        site_id=row.site_id,
        plugin_version=row.plugin_version,
        latest_version=latest.get(row.cms),
        sdk_language=row.sdk_language,
        cms_version=row.cms_version,
        php_version=row.php_version,
        server_info=dict(row.server_info),
        errors_last_hour=row.errors_last_hour,
        status=row.status,
        error_rate=row.error_rate,
        first_seen=row.first_seen,
        last_heartbeat=row.last_heartbeat,
    )
