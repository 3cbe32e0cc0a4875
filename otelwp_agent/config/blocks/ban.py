"""Settings of bans."""

from __future__ import annotations

from pydantic import Field

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import PositiveDuration  # noqa: TC001 - a field's annotation


class Ban(Block):
    """When to ban an address that fails to authenticate."""

    failures: int = Field(10, ge=1)
    """Failures after which the address is banned."""
    window: PositiveDuration = 60.0
    """Time within which the failures count."""
    duration: PositiveDuration = 60.0
    """Duration of the first ban. Each further ban is twice as long, up to 32 times."""
