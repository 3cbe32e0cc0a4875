"""Agents that report over OpAMP: record their reports, many at once in one transaction, and find them.

Each agent has a row in `plugin_installations`, so that it is in the same lists and statistics as plugins: its CMS is
`opamp` or what the settings name for its `service.name`, its site is the instance uid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from otelwp_agent.codecs.heartbeat.plugin_version import is_version
from otelwp_agent.codecs.opamp.reports import UNSET
from otelwp_agent.control.fleet.beats import CHUNK, Beat, record_beats
from otelwp_agent.control.fleet.installations import installation_id
from otelwp_agent.control.fleet.tables import AGENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from otelwp_agent.codecs.opamp.reports import AgentReport

CMS = "opamp"
"""The CMS of agents whose `service.name` has no other one."""
UNKNOWN_VERSION = "0"
"""The version of an agent that reports none that can be compared."""
ENVIRONMENT = "production"
_ENVIRONMENTS = ("deployment.environment.name", "deployment.environment")
LONGEST_ENVIRONMENT = LONGEST_LANGUAGE = 32
LONGEST_VERSION = 64
"""Largest number of characters that a column of the table can hold."""
_MAX_INFO = 32


class TenantReport(NamedTuple):
    """The report of an agent over OpAMP, with the tenant that the agent belongs to."""

    tenant: str
    report: AgentReport
    cms: Mapping[str, str]
    """The CMS for a `service.name`."""


class RecordedReport(NamedTuple):
    """The result of a report."""

    installation: str
    """The id of the installation, "" if nothing was stored because the agent has not described itself yet."""
    needs_state: bool = False
    """Whether the agent must send its full state: messages are missing."""
    needs_components: bool = False
    """Whether the agent must send its available components, of which only the hash is new."""


@dataclass(frozen=True, slots=True)
class FleetAgent:
    """An agent, as stored. The fields are the columns of the table."""

    installation: str
    tenant: str
    cms: str
    environment: str
    instance: str
    sequence: int
    capabilities: int
    attributes: Mapping[str, str]
    health: Mapping[str, Any]
    healthy: bool
    effective_config: Mapping[str, str]
    components: Sequence[str]
    components_hash: str
    config_hash: str
    config_state: str
    config_message: str
    disconnected: bool
    reported: datetime

    def to_json(self) -> dict[str, Any]:
        """Return what people read, for JSON output."""
        return {
            "instance_uid": self.instance,
            "attributes": dict(self.attributes),
            "health": {"healthy": self.healthy, **self.health},
            "effective_config": dict(self.effective_config),
            "components": list(self.components),
            "remote_config": {
                "state": self.config_state,
                "hash": self.config_hash,
                "message": self.config_message,
            },
            "disconnected": self.disconnected,
            "reported": self.reported.isoformat(),
        }


def _upsert(insert: Any) -> Any:  # noqa: ANN401 - the insert of a dialect
    statement = insert(AGENTS)
    kept = {"installation", "tenant", "cms", "environment", "instance"}
    return statement.on_conflict_do_update(
        index_elements=[AGENTS.c.installation],
        set_={column.name: statement.excluded[column.name] for column in AGENTS.c if column.name not in kept},
    )


_UPSERTS = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
_BY_INSTANCE = select(AGENTS).where(tuple_(AGENTS.c.tenant, AGENTS.c.instance).in_(bindparam("keys", expanding=True)))


def record_reports(connection: Connection, reports: Sequence[TenantReport], now: datetime) -> list[RecordedReport]:
    """Create or update the agents and their installations; return the results in the order of `reports`."""
    results: list[RecordedReport] = []
    for start in range(0, len(reports), CHUNK):
        results += _record(connection, reports[start : start + CHUNK], now)
    return results


def get_agent(connection: Connection, installation: str) -> FleetAgent | None:
    """Return the agent of an installation, or `None` if it does not report over OpAMP."""
    row = connection.execute(select(AGENTS).where(AGENTS.c.installation == installation)).one_or_none()
    return None if row is None else FleetAgent(*row)


def _record(connection: Connection, reports: Sequence[TenantReport], now: datetime) -> list[RecordedReport]:
    keys = list(dict.fromkeys((each.tenant, each.report.instance) for each in reports))
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (row.tenant, row.instance): dict(row._mapping)  # noqa: SLF001 - its documented access by name
        for row in connection.execute(_BY_INSTANCE, {"keys": keys})
    }
    beats: dict[tuple[str, str], Beat] = {}
    results = []
    for tenant, report, cms in reports:
        key = (tenant, report.instance)
        row = rows.get(key)
        if row is None and report.attributes is None:
            results.append(RecordedReport("", needs_state=not report.disconnects))
            continue
        missed = row is not None and report.attributes is None and report.sequence != row["sequence"] + 1
        if row is None:
            row = rows[key] = _new(tenant, report.instance, report.attributes or {}, cms)
        stale = report.components == () and report.components_hash != row["components_hash"]
        _merge(row, report, now)
        beats[key] = _beat(row)
        results.append(RecordedReport(row["installation"], missed and not report.disconnects, stale))
    if beats:
        record_beats(connection, list(beats.values()), now)
        connection.execute(_UPSERTS[connection.dialect.name], [rows[key] for key in beats])
    return results


def _new(tenant: str, instance: str, attributes: Mapping[str, str], types: Mapping[str, str]) -> dict[str, Any]:
    cms = types.get(attributes.get("service.name", ""), CMS)
    environment = next((attributes[name] for name in _ENVIRONMENTS if attributes.get(name)), ENVIRONMENT)
    environment = environment[:LONGEST_ENVIRONMENT]
    return {
        "installation": installation_id(tenant, cms, environment, instance),
        "tenant": tenant,
        "cms": cms,
        "environment": environment,
        "instance": instance,
        "health": {},
        "healthy": True,
        "effective_config": {},
        "components": [],
        "components_hash": "",
        "config_hash": "",
        "config_state": UNSET,
        "config_message": "",
    }


def _merge(row: dict[str, Any], report: AgentReport, now: datetime) -> None:
    """Update a row with what a report contains."""
    row.update(
        sequence=report.sequence, capabilities=report.capabilities, disconnected=report.disconnects, reported=now
    )
    if report.attributes is not None:
        row["attributes"] = dict(report.attributes)
    if report.health is not None:
        row["health"] = {name: value for name, value in report.health.items() if name != "healthy"}
        row["healthy"] = bool(report.health["healthy"])
    if report.effective_config is not None:
        row["effective_config"] = dict(report.effective_config)
    if report.components:
        row["components"] = list(report.components)
        row["components_hash"] = report.components_hash
    if report.config is not None:
        row["config_hash"] = report.config.hash
        row["config_state"] = report.config.state
        row["config_message"] = report.config.message


def _beat(row: Mapping[str, Any]) -> Beat:
    """Return the heartbeat that a report stands for."""
    attributes: Mapping[str, str] = row["attributes"]
    version = attributes.get("service.version", "").removeprefix("v")
    is_php = attributes.get("process.runtime.name") in {"php", "cli", "fpm-fcgi"}
    return Beat(
        tenant=row["tenant"],
        cms=row["cms"],
        environment=row["environment"],
        site_id=row["instance"],
        plugin_version=version if is_version(version) else UNKNOWN_VERSION,
        sdk_language=attributes.get("telemetry.sdk.language", "")[:LONGEST_LANGUAGE],
        php_version=attributes.get("process.runtime.version", "")[:LONGEST_VERSION] if is_php else "",
        server_info=dict(list(attributes.items())[:_MAX_INFO]),
    )
