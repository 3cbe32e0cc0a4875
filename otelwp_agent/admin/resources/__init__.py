"""The operations of the admin API on the control store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.admin.resources import audit_log, keys, licenses, me, operators, plans, plugins, tenants

if TYPE_CHECKING:
    from otelwp_agent.admin.operation import ApiOperation

OPERATIONS: tuple[ApiOperation, ...] = (
    *me.OPERATIONS,
    *tenants.OPERATIONS,
    *keys.OPERATIONS,
    *plans.OPERATIONS,
    *licenses.OPERATIONS,
    *operators.OPERATIONS,
    *plugins.OPERATIONS,
    *audit_log.OPERATIONS,
)
