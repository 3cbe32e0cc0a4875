"""Settings of the section `service.license`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import Duration, Secret  # noqa: TC001 - pydantic reads them
from otelwp_agent.config.urls import encrypted_url_problem

LICENSE_STATE = "license-state.json"
"""Name of the licence's state file in the journal's directory."""


def _is_server(value: str) -> str:
    problem = encrypted_url_problem(value, "https://license.example", "the licence could be read on the way")
    if not problem and ("?" in value or "#" in value):
        problem = "the URL of a licence server has no query and no fragment: remove everything from `?` or `#` on"
    if problem:
        raise ValueError(problem)
    return value


class LicenseConfig(Block):
    """The licence of this agent, and the server that renews it."""

    key: Secret | None = None
    """The licence: the text that its issuer sent. Give `key` or `file`."""
    file: str | None = Field(None, min_length=1)
    """File with the licence. It is read again when it changes."""
    url: Annotated[str, AfterValidator(_is_server)] | None = None
    """URL of the licence server, without `/validate`. Without it, only a licence that has no lease stays valid."""
    public_keys: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default_factory=list, max_length=32)
    """Public keys that licences are signed with: the text of a key, or a file with a key per line. They are added to
    those of the vendor."""
    grace: Duration = 14 * 86400.0
    """How long the tier holds after the end of the lease, while the licence server cannot be reached."""
    ca_file: str | None = Field(None, min_length=1)
    """PEM file with the certificate authorities to trust for `url`; the system's authorities if left out."""
    state_file: str | None = Field(None, min_length=1)
    """File (mode 0600) for the last renewal and the latest known time. Default: `license-state.json` in the journal's
    directory; without a journal, they are not kept across a restart. `none` keeps nothing."""

    @model_validator(mode="after")
    def _is_one(self) -> LicenseConfig:
        if (self.key is None) == (self.file is None):
            message = "a licence is `key` or `file`: give one of them, or remove `license`"
            raise ValueError(message)
        return self
