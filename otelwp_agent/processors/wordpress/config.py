"""Setting groups of the WordPress processor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from otelwp_agent.component import NeedsTier, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it


class Multisite(Block):
    """How to distinguish the sites of a network (enterprise tier)."""

    enabled: Annotated[bool, NeedsTier(Tier.ENTERPRISE, otherwise=False)] = True
    """Add the site to the resource and to `service.name`. Lower tiers do not."""
    suffix: Annotated[str, NeedsTier(Tier.ENTERPRISE)] = "-site-{id}"
    """Suffix of `service.name` on every site except the first; "" adds none."""

    @field_validator("suffix")
    @classmethod
    def _differs_by_site(cls, suffix: str) -> str:
        if suffix and "{id}" not in suffix:
            message = f"{suffix!r} is the same for every site: write `{{id}}` in the place of the site's number"
            raise ValueError(message)
        return suffix


class Redact(Block):
    """Data to remove from attributes, events and status messages."""

    enabled: bool = True
    """Remove personal data and secrets."""
    mode: Literal["remove", "hash"] = "remove"
    """`remove` leaves nothing or REDACTED; `hash` leaves a keyed hash, so that equal values stay recognizable."""
    hash_key: Secret | None = None
    """Key of the hash. It must be secret, because otherwise all user ids could be tried."""
    sql: bool = True
    """Replace the values in SQL by `?`."""
    parameters: list[str] = Field(default_factory=list)
    """Query parameters to redact in addition to those for secrets, personal data or search terms."""
    attributes: list[str] = Field(default_factory=list)
    """Attributes to redact in addition to those of users, client addresses, cookies and credentials."""

    @model_validator(mode="after")
    def _key_for_hashes(self) -> Redact:
        if self.mode == "hash" and (self.hash_key is None or not self.hash_key.get_secret_value()):
            raise ValueError("mode: hash needs a `hash_key`, like `${env:REDACTION_KEY}`; or write `mode: remove`")
        return self
