"""Published versions of the plugin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from otelwp_agent.codecs.heartbeat.plugin_version import PATTERN, is_version, precedence
from otelwp_agent.control.errors import ConflictError, InvalidValueError
from otelwp_agent.control.fleet.tables import VERSIONS
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.operations import values

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

MAX_VERSIONS = 1000
"""Most versions of one CMS."""
LONGEST_NOTES = 2000


@dataclass(frozen=True, slots=True)
class PluginVersion:
    """A published version."""

    cms: str
    version: str
    is_latest: bool
    is_critical: bool
    """Whether older versions have a security problem."""
    notes: str
    created: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the version for JSON output."""
        return {**asdict(self), "created": self.created.isoformat()}


def register_version(  # noqa: PLR0913 - the columns of a version
    connection: Connection,
    actor: Actor,
    cms: str,
    version: str,
    *,
    is_latest: bool = True,
    is_critical: bool = False,
    notes: str = "",
) -> PluginVersion:
    """Add a version; as the latest one, it replaces the one that was the latest."""
    change = Mutation(connection, actor)
    values.name(cms, "CMS")
    if not is_version(version):
        raise InvalidValueError(f"{version!r:.80} is not a version: use the form of 1.3.5 or 2.0.0-beta.1 ({PATTERN})")
    if len(notes) > LONGEST_NOTES:
        raise InvalidValueError(f"the notes are longer than {LONGEST_NOTES} characters")
    known = [each.version for each in list_versions(connection, cms)]
    if version in known:
        raise ConflictError(f"version {version} for {cms} is registered already")
    if len(known) >= MAX_VERSIONS:
        raise ConflictError(f"there are {MAX_VERSIONS} versions for {cms} already")
    new = PluginVersion(cms, version, is_latest, is_critical, notes, change.now)
    if is_latest:
        connection.execute(update(VERSIONS).where(VERSIONS.c.cms == cms).values(is_latest=False))
    connection.execute(insert(VERSIONS).values(**asdict(new)))
    change.audit("version.register", f"{cms} {version}", None, new.to_json())
    return new


def list_versions(connection: Connection, cms: str | None = None) -> list[PluginVersion]:
    """Return the versions, newest first; only those for one CMS if it is given."""
    query = select(VERSIONS)
    if cms is not None:
        query = query.where(VERSIONS.c.cms == cms)
    found = [PluginVersion(*row) for row in connection.execute(query)]
    found.sort(key=lambda each: precedence(each.version), reverse=True)
    return sorted(found, key=lambda each: each.cms)


def latest_versions(connection: Connection) -> dict[str, str]:
    """Return the latest version for each CMS that has one."""
    query = select(VERSIONS.c.cms, VERSIONS.c.version).where(VERSIONS.c.is_latest)
    return {row.cms: row.version for row in connection.execute(query)}
