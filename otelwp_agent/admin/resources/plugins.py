"""`/plugins`: installations of plugins, their toggles and notices, versions, statistics and alerts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from otelwp_agent.admin.models import PRINTABLE, ApiModel, Name, PageQuery, Title
from otelwp_agent.admin.operation import PLUGIN, PREFIX, UUID_PATTERN, ApiOperation
from otelwp_agent.admin.pages import paged
from otelwp_agent.admin.resources.agent_views import FleetAgentView  # noqa: TC001 - a field's annotation
from otelwp_agent.codecs.heartbeat.plugin_version import PATTERN
from otelwp_agent.control.errors import InvalidValueError
from otelwp_agent.control.fleet import agents, installations, notifications, overview, toggles, versions
from otelwp_agent.control.fleet.events import PERIOD, count_events, recent_events
from otelwp_agent.control.operations import values
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.operation import ApiCall

Status = Literal["active", "outdated", "error", "blocked"]
ToggleKey = Literal["block_plugin", "force_update", "enable_debug", "rate_limit"]
Id = Annotated[str, Field(pattern=UUID_PATTERN)]
Version = Annotated[str, Field(pattern=PATTERN, max_length=64)]

Count = Annotated[int, Field(ge=0, le=2**53)]

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def _rfc3339(value: Any) -> Any:  # noqa: ANN401 - anything that a client sends
    """Return a time of the form of RFC 3339; pydantic reads more forms, such as numbers."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("write a time like `2027-12-31T12:00:00Z`")
    return datetime.fromisoformat(value)


Time = Annotated[datetime, BeforeValidator(_rfc3339), WithJsonSchema({"type": "string", "format": "date-time"})]


class PluginView(ApiModel):
    """An installation of a plugin."""

    id: Id
    merchant_id: Name
    """The tenant."""
    merchant_name: str
    merchant_email: str
    """The attribute `email` of the tenant, or ""."""
    cms: str
    plugin_version: str
    latest_version: str | None
    """The latest version for this CMS, `null` if none is registered."""
    status: Status
    """`error`: without a heartbeat for 48 hours."""
    error_rate: float
    """Share of errors in the events of the last 24 hours, in percent, as the monitor calculated it last."""
    last_heartbeat: datetime
    errors_24h: Count
    """Errors in the last 24 hours."""
    environment: str
    site_id: str


class PluginEventView(ApiModel):
    """An event of a plugin."""

    event_type: str
    severity: str
    event_data: dict[str, Any]
    stack_trace: str
    received: datetime


class ToggleView(ApiModel):
    """A toggle of an installation."""

    id: Id
    plugin_id: Id
    toggle_key: ToggleKey
    toggle_value: bool
    reason: str
    expires_at: datetime | None
    updated_by: str
    """The author of the last change: `operator:<name>` or `cli:<user>`."""
    updated: datetime
    state: Literal["set", "pending"]
    """`pending`: it waits for a second operator, and has no effect yet."""


class PluginNotice(ApiModel):
    """A notice of a newer version."""

    id: Id
    plugin_id: Id
    from_version: str
    to_version: str
    channel: str
    priority: str
    created: datetime
    sent_at: datetime | None
    """When a reply to a heartbeat contained it first."""
    acknowledged_at: datetime | None


class PluginDetails(PluginView):
    """An installation with its last events."""

    sdk_language: str
    cms_version: str
    php_version: str
    server_info: dict[str, str]
    errors_last_hour: float
    first_seen: datetime
    recent_events: list[PluginEventView]
    active_toggles: list[ToggleView]
    pending_toggles: list[ToggleView]
    notifications: list[PluginNotice]
    agent: FleetAgentView | None
    """`null` if it does not report over OpAMP."""


class PluginQuery(PageQuery):
    """The installations to list."""

    status: Status | None = None
    """Only those with this status."""
    cms: Name | None = None
    """Only those with this CMS."""
    merchant_id: Name | None = None
    """Only those of this tenant."""


class ToggleSetting(ApiModel):
    """A toggle to set."""

    toggle_key: ToggleKey
    toggle_value: Annotated[bool, Field(strict=True)]
    reason: Title | None = None
    """Needed to block a plugin."""
    expires_at: Time | None = None
    """When the toggle loses its effect. Default: never."""
    updated_by: Annotated[str, Field(max_length=200, json_schema_extra={"format": PRINTABLE})] | None = None
    """Accepted, without effect: the author of the change is the operator who sends it."""


class UpgradeNotice(ApiModel):
    """How to send a notice."""

    channel: Literal["in-app"] = "in-app"
    """`in-app`: in the replies to heartbeats."""


class NoticeSent(ApiModel):
    """The result of a notice."""

    status: Literal["ok"]
    message: str
    notification: PluginNotice


class CmsCount(ApiModel):
    """Installations with a CMS."""

    cms: str
    count: Count


class PluginStatistics(ApiModel):
    """Counts of all installations."""

    active_count: Count
    outdated_count: Count
    blocked_count: Count
    error_count: Count
    high_error_rate_count: Count
    """Those with an error rate above 5 %."""
    stale_count: Count
    """Those without a heartbeat for 48 hours."""
    avg_error_rate: float
    cms_breakdown: list[CmsCount]


class PluginAlert(ApiModel):
    """A state of the fleet that an operator must examine."""

    name: str
    value: float
    threshold: float
    summary: str


class NewVersion(ApiModel):
    """A version to register."""

    cms: Name
    version: Version
    is_latest: Annotated[bool, Field(strict=True)] = True
    """Whether installations with an older version are outdated."""
    is_critical: Annotated[bool, Field(strict=True)] = False
    """Whether it solves a security problem."""
    notes: Annotated[str, Field(max_length=versions.LONGEST_NOTES, json_schema_extra={"format": PRINTABLE})] = ""


class VersionView(ApiModel):
    """A registered version."""

    cms: str
    version: str
    is_latest: bool
    is_critical: bool
    notes: str
    created: datetime


class VersionQuery(ApiModel):
    """The versions to list."""

    cms: Name | None = None
    """Only those for this CMS."""


def _list(connection: Connection, call: ApiCall) -> object:
    query: PluginQuery = call.query
    now = datetime.now(UTC)
    errors: dict[str, int] = {}

    def read(after: str, limit: int) -> list[installations.Installation]:
        found = installations.list_installations(
            connection, after=after, limit=limit, status=query.status, cms=query.cms, tenant=query.merchant_id
        )
        counts = count_events(connection, [each.id for each in found], now - PERIOD, now)
        errors.update({id_: each.errors for id_, each in counts.items()})
        return found

    return paged(query, read, lambda each: each.id, lambda each: {**each.to_json(), "errors_24h": errors[each.id]})


def _get(connection: Connection, call: ApiCall) -> object:
    id_, now = call.path[PLUGIN], datetime.now(UTC)
    found = installations.get_installation(connection, id_)
    active = toggles.active_toggles(connection, [id_], now).get(id_, [])
    pending = [each for each in toggles.list_toggles(connection, id_) if each.pending]
    agent = agents.get_agent(connection, id_)
    return {
        **found.details(),
        "errors_24h": count_events(connection, [id_], now - PERIOD, now)[id_].errors,
        "recent_events": recent_events(connection, id_),
        "active_toggles": [each.to_json() for each in active],
        "pending_toggles": [each.to_json() for each in pending],
        "notifications": [each.to_json() for each in notifications.list_notices(connection, id_)],
        "agent": None if agent is None else agent.to_json(),
    }


def _toggle(connection: Connection, call: ApiCall) -> object:
    new: ToggleSetting = call.body
    return toggles.set_toggle(
        connection,
        call.actor,
        call.path[PLUGIN],
        new.toggle_key,
        value=new.toggle_value,
        reason=new.reason or "",
        expires_at=new.expires_at,
    ).to_json()


def _notify(connection: Connection, call: ApiCall) -> object:
    notice = notifications.notify_upgrade(connection, call.actor, call.path[PLUGIN], call.body.channel)
    return {"status": "ok", "message": "Notification sent", "notification": notice.to_json()}


def _statistics(connection: Connection, call: ApiCall) -> object:
    del call
    return overview.statistics(connection, datetime.now(UTC)).to_json()


def _alerts(connection: Connection, call: ApiCall) -> object:
    del call
    return [each._asdict() for each in overview.alerts(overview.statistics(connection, datetime.now(UTC)))]


def _versions(connection: Connection, call: ApiCall) -> object:
    return [each.to_json() for each in versions.list_versions(connection, call.query.cms)]


def _register(connection: Connection, call: ApiCall) -> object:
    new: NewVersion = call.body
    if not new.notes.isprintable():
        raise InvalidValueError("`notes` must have printable characters only")
    return versions.register_version(
        connection,
        call.actor,
        values.name(new.cms, "CMS"),
        new.version,
        is_latest=new.is_latest,
        is_critical=new.is_critical,
        notes=new.notes,
    ).to_json()


_ALL = f"{PREFIX}/plugins"
_ONE = f"{_ALL}/{{{PLUGIN}}}"
OPERATIONS = (
    ApiOperation(
        "GET",
        f"{_ALL}/list",
        "listPlugins",
        "List installations, ordered by id. The header `Link` has the URL of the next page",
        _list,
        query=PluginQuery,
        answer=PluginView,
        is_array=True,
    ),
    ApiOperation(
        "GET",
        f"{_ALL}/stats/overview",
        "getPluginStatistics",
        "Read the statistics of all installations",
        _statistics,
        answer=PluginStatistics,
    ),
    ApiOperation(
        "GET",
        f"{_ALL}/alerts",
        "listPluginAlerts",
        "List the alerts: more than 20 % outdated, or more than 5 installations with a high error rate",
        _alerts,
        answer=PluginAlert,
        is_array=True,
    ),
    ApiOperation(
        "GET",
        f"{_ALL}/versions",
        "listPluginVersions",
        "List the registered versions, newest first",
        _versions,
        query=VersionQuery,
        answer=VersionView,
        is_array=True,
    ),
    ApiOperation(
        "POST",
        f"{_ALL}/versions",
        "registerPluginVersion",
        "Register a version",
        _register,
        role=Role.OPERATOR,
        body=NewVersion,
        answer=VersionView,
        status=201,
    ),
    ApiOperation(
        "GET", _ONE, "getPlugin", "Read an installation, its last events and its toggles", _get, answer=PluginDetails
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/toggle",
        "setPluginToggle",
        "Set a toggle. To block a plugin, a second operator must send the same request",
        _toggle,
        role=Role.OPERATOR,
        body=ToggleSetting,
        answer=ToggleView,
    ),
    ApiOperation(
        "POST",
        f"{_ONE}/notify-upgrade",
        "notifyPluginUpgrade",
        "Send a notice of the latest version",
        _notify,
        role=Role.OPERATOR,
        body=UpgradeNotice,
        answer=NoticeSent,
    ),
)
