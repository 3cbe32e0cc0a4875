"""Tools for contract checks: `require`, and the kinds of components that share a role."""

from __future__ import annotations

from otelwp_agent.component import Kind

STAGES = (Kind.PROCESSOR, Kind.CONNECTOR)
"""The kinds that take batches and forward them."""
LISTENERS = (Kind.RECEIVER, Kind.EXTENSION)
"""The kinds that listen on a port."""


class RequirementError(Exception):
    """A requirement is not met; `Contract.check` adds the rule to the message."""


def require(condition: object, happened: str) -> None:
    """Fail the contract that is being checked, unless `condition` holds."""
    if not condition:
        raise RequirementError(happened)
