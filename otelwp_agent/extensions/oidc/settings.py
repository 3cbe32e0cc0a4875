"""Settings of one issuer of tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.config.blocks import Block
from otelwp_agent.config.urls import encrypted_url_problem


def url_problem(value: str) -> str:
    """Return why keys must not be fetched from a URL, or "": it needs https, except on this host."""
    return encrypted_url_problem(value, "https://login.example/realms/shop", "keys could be replaced on the way")


def _is_issuer(value: str) -> str:
    """Check an issuer (OpenID Connect Discovery 1.0, 3): an https URL without query and fragment."""
    problem = url_problem(value) if value else ""
    if not problem and ("?" in value or "#" in value):
        problem = "an issuer's URL has no query and no fragment: remove everything from `?` or `#` on"
    if problem:
        raise ValueError(problem)
    return value


class OidcProviderSettings(Block):
    """Settings of one issuer of tokens."""

    issuer_url: Annotated[str, AfterValidator(_is_issuer)] = ""
    """URL of the issuer, exactly as in the claim `iss` of its tokens."""
    audience: str = ""
    """Text that the claim `aud` of a token must contain."""
    ignore_audience: bool = False
    """Accept tokens for every audience. Then tokens that the issuer has made for other services are accepted too."""
    issuer_ca_path: str = ""
    """PEM file with the certificate authorities to trust when keys are fetched; the system's authorities if left out.
    """
    username_claim: str = Field("sub", min_length=1)
    """Claim that identifies the client in logs and limits. Tokens must have it."""
    groups_claim: str = ""
    """Claim with the groups of the client."""
    tenant_claim: str = ""
    """Claim with the tenant that the telemetry belongs to. Tokens without it are refused with 403. If left out, the
    client belongs to no tenant."""
    public_keys_file: str = ""
    """File with the issuer's public keys (a JWK set), instead of fetching them. It is read again when it changes."""

    def problem(self) -> str:
        """Return what is missing, or ""."""
        if not self.issuer_url:
            return "`issuer_url` is missing: give the URL of the issuer, as in the claim `iss` of its tokens"
        if not self.audience and not self.ignore_audience:
            return "`audience` is missing: give the text that `aud` must contain, or set `ignore_audience: true`"
        if self.public_keys_file and self.issuer_ca_path:
            return "`issuer_ca_path` has no effect with `public_keys_file`: remove one of them"
        return ""


class OidcProvider(OidcProviderSettings):
    """One issuer of tokens."""

    @model_validator(mode="after")
    def _is_complete(self) -> OidcProvider:
        if problem := self.problem():
            raise ValueError(problem)
        return self
