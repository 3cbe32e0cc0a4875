"""Settings that name the public keys to encrypt to."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import PositiveDuration  # noqa: TC001 - pydantic reads it
from otelwp_agent.config.urls import encrypted_url_problem

_LENGTHS = {"X25519": 43, "MLKEM768_X25519": 1622}
"""Characters of a public key in base64url, by suite."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")


def _is_url(value: str) -> str:
    problem = encrypted_url_problem(
        value, "https://collector.example/key-set.jws", "an older key set could be served on the way"
    )
    if problem:
        raise ValueError(problem)
    return value


class InlineKey(Block):
    """A public key in the configuration."""

    key_id: str = Field(min_length=1, max_length=128)
    """The id by which the recipient finds the private key."""
    suite: Literal["X25519", "MLKEM768_X25519"] = "X25519"
    """The cipher suite of the key."""
    public_key: str
    """The key in base64url, as `otelwp-agent keys list` shows it."""

    @model_validator(mode="after")
    def _has_its_length(self) -> InlineKey:
        wanted = _LENGTHS[self.suite]
        if len(self.public_key) != wanted or not _BASE64URL.match(self.public_key):
            message = (
                f"`public_key` is not a key of suite {self.suite}: it has {wanted} characters in base64url; "
                "`otelwp-agent keys list` shows it"
            )
            raise ValueError(message)
        return self


class RecipientsConfig(Block):
    """The public keys to encrypt to: a signed key set at a URL or in a file, or keys in the configuration."""

    url: Annotated[str, AfterValidator(_is_url)] | None = None
    """URL of a signed key set, which is fetched regularly. Give `url`, `file` or `keys`."""
    file: str | None = Field(None, min_length=1)
    """File with a signed key set. It is read again when it changes."""
    keys: list[InlineKey] = Field(default_factory=list, max_length=100)
    """Public keys. The last one of each suite is used; the configuration is their only protection."""
    public_keys: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default_factory=list, max_length=32)
    """Public keys that the key set is signed with: the text of a key, or a file with a key per line. Needed for `url`
    and `file`."""
    refresh_interval: PositiveDuration = 300.0
    """Time between two requests for the key set at `url`."""
    timeout: PositiveDuration = 10.0
    """Maximum time of one request."""
    ca_file: str | None = Field(None, min_length=1)
    """PEM file with the certificate authorities to trust for `url`; the system's authorities if left out."""
    state_file: str | None = Field(None, min_length=1)
    """File (mode 0600) for the newest key set from `url`. With it, the agent can encrypt after a restart even if
    the URL cannot be reached, and an older key set is refused after a restart as well."""

    @model_validator(mode="after")
    def _is_one(self) -> RecipientsConfig:
        given = [name for name in ("url", "file", "keys") if getattr(self, name)]
        if len(given) != 1:
            message = "recipients are named by `url`, `file` or `keys`: give one of them"
            raise ValueError(message)
        if given != ["keys"] and not self.public_keys:
            message = f"`public_keys` is missing: give the keys that verify the key set of `{given[0]}`"
            raise ValueError(message)
        if given == ["keys"] and self.public_keys:
            message = "`public_keys` has no effect with `keys`, which are not signed: remove one of them"
            raise ValueError(message)
        if self.state_file is not None and given != ["url"]:
            message = f"`state_file` has no effect with `{given[0]}`: remove it"
            raise ValueError(message)
        ids = [key.key_id for key in self.keys]
        if len(set(ids)) < len(ids):
            message = "two keys have the same `key_id`: give each its own"
            raise ValueError(message)
        return self
