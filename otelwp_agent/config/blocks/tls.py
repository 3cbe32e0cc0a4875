"""TLS settings of servers and clients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Duration, Ignored, Refused, Secret

TlsVersion = Literal["1.2", "1.3"]

_OLD_TLS = ("1.0", "1.1")
_CIPHERS = Ignored("OpenSSL's default list of safe suites is used")
_CURVES = Ignored("OpenSSL's default list of curves is used")
_NOT_THE_CLIENTS = Ignored("a server verifies its clients with `client_ca_file` only")
_TPM = Refused("keys in a trusted platform module cannot be used: give `key_file`, and remove `tpm`")


def _old_version_is_oldest_safe(value: object) -> object:
    return "1.2" if value in _OLD_TLS else value


MinTlsVersion = Annotated[
    TlsVersion,
    BeforeValidator(_old_version_is_oldest_safe, json_schema_input_type=Literal["1.0", "1.1", "1.2", "1.3"]),
    Ignored("TLS 1.0 and 1.1 are insecure: 1.2 is used, the oldest supported version", values=_OLD_TLS),
]
"""`1.2` or `1.3`; older versions are read as 1.2, with a warning."""


class TlsFiles(Block):
    """TLS settings that servers and clients share."""

    cert_file: str | None = None
    """PEM file with the agent's certificate chain."""
    cert_pem: Secret | None = None
    """The certificate chain as PEM text, instead of `cert_file`."""
    key_file: str | None = None
    """PEM file with the private key of the certificate."""
    key_pem: Secret | None = None
    """The private key as PEM text, instead of `key_file`: `${env:KEY}`."""
    min_version: MinTlsVersion = "1.2"
    """Oldest TLS version accepted."""
    max_version: TlsVersion | None = None
    """Newest TLS version accepted; the newest that OpenSSL supports if left out."""
    reload_interval: Duration = 0.0
    """How often to check whether the files have changed; 0 reloads them only on SIGHUP."""
    cipher_suites: Annotated[list[str], _CIPHERS] = Field(default_factory=list)
    """Accepted for compatibility with the Collector, without effect: OpenSSL's default list is used."""
    include_insecure_cipher_suites: Annotated[bool, _CIPHERS] = False
    """Accepted for compatibility with the Collector, without effect: insecure suites are never used."""
    curve_preferences: Annotated[list[str], _CURVES] = Field(default_factory=list)
    """Accepted for compatibility with the Collector, without effect: OpenSSL's default list is used."""
    tpm: Annotated[None, _TPM] = None
    """Refused: keys in a trusted platform module cannot be used."""

    @model_validator(mode="after")
    def _one_of_each(self) -> TlsFiles:
        for what in ("cert", "key", "ca"):
            if getattr(self, f"{what}_file", None) and getattr(self, f"{what}_pem", None):
                message = f"{what}_file and {what}_pem are two forms of the same setting: give only one of them"
                raise ValueError(message)
        if bool(self.cert_file or self.cert_pem) != bool(self.key_file or self.key_pem):
            message = "cert_file and key_file belong together: give both or neither"
            raise ValueError(message)
        if self.max_version is not None and self.max_version < self.min_version:
            message = f"max_version ({self.max_version}) is below min_version ({self.min_version})"
            raise ValueError(message)
        return self


class TlsServer(TlsFiles):
    """TLS settings of a server; mutual TLS if `client_ca_file` is given."""

    client_ca_file: str | None = None
    """PEM file with the certificate authorities that must have signed a client's certificate; clients without such a
    certificate are refused."""
    client_ca_file_reload: Annotated[bool, Ignored("`reload_interval` applies to this file too")] = False
    """Accepted for compatibility with the Collector, without effect: `reload_interval` applies to this file too."""
    ca_file: Annotated[str | None, _NOT_THE_CLIENTS] = None
    """Accepted for compatibility with the Collector, without effect: `client_ca_file` verifies clients."""
    ca_pem: Annotated[Secret | None, _NOT_THE_CLIENTS] = None
    """Accepted for compatibility with the Collector, without effect: `client_ca_file` verifies clients."""
    include_system_ca_certs_pool: Annotated[bool, _NOT_THE_CLIENTS] = False
    """Accepted for compatibility with the Collector, without effect: `client_ca_file` verifies clients."""

    @model_validator(mode="after")
    def _has_certificate(self) -> TlsServer:
        if not (self.cert_file or self.cert_pem):
            message = "a server needs cert_file and key_file: give both, or remove `tls`"
            raise ValueError(message)
        return self


class TlsClient(TlsFiles):
    """TLS settings of a client."""

    insecure: bool = False
    """Connect without TLS."""
    insecure_skip_verify: bool = False
    """Do not verify the server's certificate."""
    ca_file: str | None = None
    """PEM file with the certificate authorities to trust; the system's authorities if left out."""
    ca_pem: Secret | None = None
    """The certificate authorities as PEM text, instead of `ca_file`."""
    include_system_ca_certs_pool: bool = False
    """Trust the system's certificate authorities in addition to `ca_file`."""
    server_name_override: str | None = None
    """Name expected in the server's certificate; the host of the endpoint if left out."""
