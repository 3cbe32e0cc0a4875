"""Answer the messages of agents: the part that HTTP and WebSocket share."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.codecs.opamp.replies import reply
from otelwp_agent.codecs.opamp.reports import parse_report
from otelwp_agent.component import NeedsPlan, Tier
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import StoreError
from otelwp_agent.control.fleet.agents import RecordedReport, TenantReport, record_reports
from otelwp_agent.control.group_writer import GroupWriter
from otelwp_agent.errors import ForbiddenError, Overloaded, RetryableError
from otelwp_agent.limiting.gcra import Gcra, Rate
from otelwp_agent.telemetry.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from otelwp_agent.component import Context
    from otelwp_agent.control.access import ControlAccess
    from otelwp_agent.transport.authentication import Client

NEEDS = NeedsPlan(Tier.ENTERPRISE, "agents with OpAMP")
SOONEST = 1.0
"""Shortest wait in seconds that is reported to a refused agent."""


class AgentKey(NamedTuple):
    """The identity of an agent: its tenant and its instance uid."""

    tenant: str
    instance: str


class OpampReply(NamedTuple):
    """The reply to a report."""

    agent: AgentKey
    message: bytes
    disconnects: bool = False


class OpampExchange:
    """Records reports, and makes the replies."""

    def __init__(  # noqa: PLR0913 - the settings
        self,
        access: ControlAccess,
        context: Context,
        *,
        cms: Mapping[str, str],
        rate: float,
        retry_spread: float,
        now: Callable[[], datetime],
    ) -> None:
        """Record in the store of `access`; accept `rate` messages per second, others wait up to `retry_spread` s."""
        self._access = access
        self._context = context
        self._cms = cms
        self._rate = Rate(rate, rate)
        self._rates = Gcra()
        self._spread = retry_spread
        self._failures = LogLimit(context.clock)
        self._reports: GroupWriter[TenantReport, RecordedReport] = GroupWriter(
            lambda: access.store, lambda connection, reports: record_reports(connection, reports, now())
        )

    def admit(self, client: Client | None) -> str:
        """Return the tenant of a client that may report; raise `ForbiddenError`."""
        if client is None or Scope.HEARTBEAT.value not in client.scopes:
            raise ForbiddenError(f"this credential does not have the scope `{Scope.HEARTBEAT.value}`", reason="scope")
        tenant = self._access.directory.current.tenant(client.tenant)
        if tenant is None:
            raise ForbiddenError("the tenant of this credential is not in the control store", reason="tenant")
        self._context.tenant_tiers.require(tenant.id, NEEDS.tier, str(self._context.id), NEEDS.feature)
        return tenant.id

    def take_rate(self) -> None:
        """Count a message; raise `Overloaded` if there are too many, with a wait that differs between agents."""
        if self._rates.take("messages", self._rate, self._context.clock()):
            raise Overloaded(
                "too many agents report at once: send this message again later",
                retry_after=self._wait(),
                reason="rate",
            )

    async def answer(self, tenant: str, body: bytes) -> OpampReply:
        """Record a serialized report; return the reply; raise `ConsumeError`.

        An agent that asks for an instance uid gets a new one.
        """
        self.take_rate()
        report = parse_report(body)
        agent = AgentKey(tenant, report.instance)
        if report.wants_uid:
            return OpampReply(agent, reply(report.instance, needs_state=True, new_uid=_new_uid()))
        try:
            recorded = await self._reports.write(TenantReport(tenant, report, self._cms))
        except StoreError as error:
            if times := self._failures.take():
                self._context.log.warning("reports of agents not stored", times=times, error=str(error))
            message = "the store is not available: send this message again later"
            raise RetryableError(message, retry_after=self._wait(), reason="store") from error
        message_ = reply(report.instance, needs_state=recorded.needs_state, needs_components=recorded.needs_components)
        return OpampReply(agent, message_, report.disconnects)

    async def drain(self) -> None:
        """Wait until all reports are written."""
        await self._reports.drain()

    def _wait(self) -> float:
        return random.uniform(SOONEST, self._spread)  # noqa: S311 - not for cryptography


def _new_uid() -> bytes:
    """Return a new instance uid; random, as a UUID v4, which the specification allows as well as v7."""
    return uuid.uuid4().bytes
