"""Make the answers from a snapshot: pure functions, which any thread may call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import otelwp_agent
from otelwp_agent.config.types import format_duration
from otelwp_agent.extensions.health_check.watch import name_of

if TYPE_CHECKING:
    from otelwp_agent.component import Stall
    from otelwp_agent.extensions.health_check.watch import Snapshot


@dataclass(frozen=True, slots=True)
class Agent:
    """State of the agent as a whole, without its components."""

    status: str
    started_at: float
    """Time of the start, in seconds since 1970."""
    now: float
    """Current time, in seconds since 1970."""
    stall: Stall | None = None


def summary(agent: Agent, snapshot: Snapshot, threshold: int | None) -> tuple[int, dict[str, object]]:
    """Return status code and body of `/health`; more than `threshold` failures of an exporter are unhealthy."""
    reasons = [str(agent.stall)] if agent.stall is not None else []
    reasons += [
        f"{name_of(each)}: {each.message or 'unhealthy'}" for each, _ in snapshot.components if not each.healthy
    ]
    status = "degraded" if reasons else "healthy"
    if snapshot.failing_often:
        status = "unhealthy"
        reasons += [
            f"{name} failed {count} times, but {threshold} are allowed" for name, count in snapshot.failing_often
        ]
    if agent.status != "ready":
        status = "unhealthy"
        reasons.insert(0, f"the agent is not ready: {agent.status}")
    body: dict[str, object] = {
        "status": status,
        "agent": agent.status,
        "version": otelwp_agent.__version__,
        "uptime": format_duration(max(0, round(agent.now - agent.started_at))),
        "up_since": _iso(agent.started_at),
    }
    if reasons:
        body["reasons"] = reasons
    return (503 if status == "unhealthy" else 200), body


def components(snapshot: Snapshot) -> list[dict[str, object]]:
    """Return the field `components` of `/health/detailed`."""
    return [
        {
            "kind": each.label,
            "id": each.id,
            "status": "healthy" if each.healthy else "degraded",
            "since": _iso(since),
            **({"message": each.message} if each.message else {}),
            **({"details": dict(each.details)} if each.details else {}),
        }
        for each, since in snapshot.components
    ]


def as_the_collector(code: int, summed: dict[str, object]) -> dict[str, object]:
    """Return the body in the form of the OpenTelemetry Collector's health check; arguments are `summary`'s result."""
    if code != 200:  # noqa: PLR2004 - an HTTP status
        return {"status": "Server not available"}
    return {"status": "Server available", "upSince": summed["up_since"], "uptime": summed["uptime"]}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
