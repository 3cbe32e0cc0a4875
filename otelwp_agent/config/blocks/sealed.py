"""Settings of receivers for sealed requests, and for requests that are sent again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import PositiveDuration  # noqa: TC001 - pydantic reads them


class Sealed(Block):
    """How a receiver handles sealed envelopes (`Content-Type: application/vnd.otelwp.sealed`)."""

    mode: Literal["open", "forward"] = "open"
    """`open`: the receiver opens envelopes with `keys` and forwards what was in them. `forward`: it forwards them as
    they are, to a collector that has the keys. Then this agent cannot read them; it counts, limits and stores them by
    what their header says in clear."""
    keys: str = ""
    """File with the private keys (`opening-keys.json`, written by `otelwp-agent keys generate`). It is read again when
    it changes. Required for `open`, refused for `forward`."""
    create: bool = False
    """Create `keys` with a first key at the start if there is no such file."""
    freshness: PositiveDuration = 300.0
    """Maximum age of an envelope. Behind a collector that forwards envelopes, add the time for which that may keep
    them."""
    clock_skew: PositiveDuration = 300.0
    """How far the time of an envelope may be in the future."""

    @model_validator(mode="after")
    def _keys_fit(self) -> Sealed:
        if self.mode == "open" and not self.keys:
            raise ValueError(
                "`keys` is missing: give the file that `otelwp-agent keys generate` has written (opening-keys.json), "
                "or set `mode: forward`"
            )
        if self.mode == "forward" and self.keys:
            raise ValueError("with `mode: forward`, this agent must have no keys: remove `keys`")
        return self


class Deduplication(Block):
    """How a receiver recognizes requests that are sent again, by the id of their envelope or by `Idempotency-Key`.

    They are acknowledged and not processed again.
    """

    remember: PositiveDuration = 600.0
    """How long the id of an accepted request is remembered. With a journal, also across a restart."""
    max_per_tenant: int = Field(20_000, ge=1)
    """Maximum number of ids of one tenant. If there are more, the oldest are forgotten, and envelopes as old as those
    are refused."""
    max_total: int = Field(200_000, ge=1)
    """Maximum number of ids of all tenants. Each takes about 200 bytes of memory."""
