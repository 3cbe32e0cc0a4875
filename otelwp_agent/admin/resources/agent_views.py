"""Answers about agents that report over OpAMP."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's annotation
from typing import Literal

from otelwp_agent.admin.models import ApiModel


class AgentHealthView(ApiModel):
    """The health that an agent reports."""

    healthy: bool
    status: str = ""
    last_error: str = ""
    unhealthy: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """The messages of its unhealthy components."""


class RemoteConfigView(ApiModel):
    """The state of the remote configuration of an agent."""

    state: Literal["unset", "applied", "applying", "failed"]
    hash: str
    message: str
    """Why it failed."""


class FleetAgentView(ApiModel):
    """The last report of an agent over OpAMP."""

    instance_uid: str
    attributes: dict[str, str]
    health: AgentHealthView
    effective_config: dict[str, str]
    """Text by the name of the file, without secrets."""
    components: list[str]
    remote_config: RemoteConfigView
    disconnected: bool
    reported: datetime
