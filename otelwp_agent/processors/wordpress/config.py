"""Settings of the WordPress processor, in their groups."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it


class Multisite(Block):
    """How the sites of a network are told apart (enterprise tier)."""

    enabled: bool = True
    """Put the site on the resource and into `service.name`."""
    suffix: str = "-site-{id}"
    """What `service.name` ends with on every site but the first; "" leaves the name."""

    @field_validator("suffix")
    @classmethod
    def _tells_sites_apart(cls, suffix: str) -> str:
        if suffix and "{id}" not in suffix:
            message = f"{suffix!r} is the same for every site: write `{{id}}` where its number belongs"
            raise ValueError(message)
        return suffix


class Redact(Block):
    """What is taken out of attributes, events and status messages."""

    enabled: bool = True
    """Take people and secrets out."""
    mode: Literal["remove", "hash"] = "remove"
    """`remove` leaves nothing or REDACTED; `hash` leaves a keyed hash, so that equal values can still be told."""
    hash_key: Secret | None = None
    """The key of the hash: without a secret one, anybody could try all user ids."""
    sql: bool = True
    """Put `?` for the values in SQL."""
    parameters: list[str] = Field(default_factory=list)
    """Query parameters to hide beside those that look like secrets, people or search terms."""
    attributes: list[str] = Field(default_factory=list)
    """Attributes to hide beside those of users, client addresses, cookies and credentials."""

    @model_validator(mode="after")
    def _key_for_hashes(self) -> Redact:
        if self.mode == "hash" and (self.hash_key is None or not self.hash_key.get_secret_value()):
            raise ValueError("mode: hash needs a `hash_key`, like `${env:REDACTION_KEY}`; or write `mode: remove`")
        return self
