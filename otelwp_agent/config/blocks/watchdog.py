"""Settings of the watchdog, which reports a blocked event loop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Duration  # noqa: TC001 - a field's annotation


class Watchdog(Block):
    """Settings of the watchdog, which reports a blocked event loop."""

    threshold: Annotated[Duration, Field(ge=0.05)] = 1.0
    """How long the event loop may be blocked. After that, a warning names the code that blocks it, and `/health` is
    `degraded` until the loop runs again."""
