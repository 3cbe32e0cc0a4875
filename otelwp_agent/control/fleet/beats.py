"""Record heartbeats: many at once, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from otelwp_agent.control.fleet.installations import installation_id
from otelwp_agent.control.fleet.notifications import Notice, acknowledge, deliver_notices
from otelwp_agent.control.fleet.status import status_of
from otelwp_agent.control.fleet.tables import INSTALLATIONS
from otelwp_agent.control.fleet.toggles import BLOCK, Toggle, active_toggles
from otelwp_agent.control.fleet.versions import latest_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

CHUNK = 500
"""Heartbeats that one query looks up; SQLite limits the parameters of a statement."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat of an installation, checked and redacted."""

    tenant: str
    cms: str
    environment: str
    site_id: str
    plugin_version: str
    sdk_language: str = ""
    cms_version: str = ""
    php_version: str = ""
    server_info: Mapping[str, str] = field(default_factory=dict)
    errors_last_hour: float = 0.0
    sent_at: datetime | None = None
    """When the plugin sent it, by its own clock."""
    acknowledged: Sequence[str] = ()
    """Ids of notices that a person has seen."""

    @property
    def installation(self) -> str:
        """The id of its installation."""
        return installation_id(self.tenant, self.cms, self.environment, self.site_id)


class RecordedBeat(NamedTuple):
    """The result of a heartbeat."""

    installation: str
    replayed: bool
    """Whether it was refused, because it was not sent after the last one and is not the last one itself."""
    toggles: Sequence[Toggle] = ()
    notices: Sequence[Notice] = ()
    repeated: bool = False
    """Whether it is the last heartbeat once more, which was recorded already."""


def _upsert(insert: Any) -> Any:  # noqa: ANN401 - the insert of a dialect
    kept = {"id", "tenant", "cms", "environment", "site_id", "error_rate", "first_seen"}
    statement = insert(INSTALLATIONS)
    return statement.on_conflict_do_update(
        index_elements=[INSTALLATIONS.c.id],
        set_={column.name: statement.excluded[column.name] for column in INSTALLATIONS.c if column.name not in kept},
    )


_UPSERTS = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
_REPORTED = (
    "plugin_version",
    "sdk_language",
    "cms_version",
    "php_version",
    "server_info",
    "errors_last_hour",
)
"""Columns that a heartbeat sets. A repeated heartbeat has the same values."""
_LAST = select(*(INSTALLATIONS.c[name] for name in ("id", "sent_at", *_REPORTED))).where(
    INSTALLATIONS.c.id.in_(bindparam("ids", expanding=True))
)


def record_beats(connection: Connection, beats: Sequence[Beat], now: datetime) -> list[RecordedBeat]:
    """Create or update the installations; return the results in the order of `beats`.

    A heartbeat that equals the last one, with the same `sent_at`, was repeated because its answer was lost: it gets the
    answer again; only its acknowledgements are stored. Another one with a `sent_at` that is not after that of the last
    one is a replay: nothing of it is stored.
    """
    latest = latest_versions(connection)
    results: list[RecordedBeat] = []
    for start in range(0, len(beats), CHUNK):
        results += _record(connection, beats[start : start + CHUNK], latest, now)
    return results


def _record(
    connection: Connection, beats: Sequence[Beat], latest: Mapping[str, str], now: datetime
) -> list[RecordedBeat]:
    ids = [beat.installation for beat in beats]
    last: dict[str, Mapping[str, Any]] = {
        row.id: row._asdict() for row in connection.execute(_LAST, {"ids": list(dict.fromkeys(ids))})
    }
    toggles = active_toggles(connection, ids, now)
    rows: dict[str, dict[str, Any]] = {}
    outcomes: list[tuple[bool, bool]] = []
    acknowledged: list[tuple[str, str]] = []
    for id_, beat in zip(ids, beats, strict=True):
        before = last.get(id_, {})
        sent_at = before.get("sent_at")
        old = beat.sent_at is not None and sent_at is not None and beat.sent_at <= sent_at
        repeated = old and _is_repeated(beat, before)
        outcomes.append((old and not repeated, repeated))
        if not old:
            is_blocked = _is_blocked(toggles.get(id_, ()))
            row = _row(id_, beat, beat.sent_at or sent_at, latest, now, is_blocked=is_blocked)
            rows[id_] = row
            last[id_] = row
        if repeated or not old:
            acknowledged += [(id_, notice) for notice in beat.acknowledged]
    if rows:
        connection.execute(_UPSERTS[connection.dialect.name], list(rows.values()))
    acknowledge(connection, acknowledged, now)
    answered = {id_ for id_, (replayed, _) in zip(ids, outcomes, strict=True) if not replayed}
    notices = deliver_notices(connection, answered, now)
    return [
        RecordedBeat(id_, replayed=True)
        if replayed
        else RecordedBeat(id_, replayed, toggles.get(id_, ()), notices.get(id_, ()), repeated)
        for id_, (replayed, repeated) in zip(ids, outcomes, strict=True)
    ]


def _is_repeated(beat: Beat, last: Mapping[str, Any]) -> bool:
    """Return whether `beat` is the last heartbeat of its installation, sent once more."""
    return beat.sent_at == last["sent_at"] and all(getattr(beat, name) == last[name] for name in _REPORTED)


def _row(  # noqa: PLR0913 - the columns
    id_: str,
    beat: Beat,
    sent_at: datetime | None,
    latest: Mapping[str, str],
    now: datetime,
    *,
    is_blocked: bool,
) -> dict[str, Any]:
    return {
        "id": id_,
        "tenant": beat.tenant,
        "cms": beat.cms,
        "environment": beat.environment,
        "site_id": beat.site_id,
        "plugin_version": beat.plugin_version,
        "sdk_language": beat.sdk_language,
        "cms_version": beat.cms_version,
        "php_version": beat.php_version,
        "server_info": dict(beat.server_info),
        "errors_last_hour": beat.errors_last_hour,
        "status": status_of(beat.cms, beat.plugin_version, now, latest=latest, is_blocked=is_blocked, now=now),
        "error_rate": 0.0,
        "first_seen": now,
        "last_heartbeat": now,
        "sent_at": sent_at,
    }


def _is_blocked(toggles: Sequence[Toggle]) -> bool:
    return any(toggle.key == BLOCK for toggle in toggles)
