"""TLS of servers and clients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Duration, Ignored, Refused, Secret

TlsVersion = Literal["1.2", "1.3"]

_OLD_TLS = ("1.0", "1.1")
_CIPHERS = Ignored("OpenSSL's own list of safe suites is used")
_CURVES = Ignored("OpenSSL's own list of curves is used")
_NOT_THE_CLIENTS = Ignored("a server verifies its clients by `client_ca_file` alone")
_TPM = Refused("keys in a trusted platform module cannot be used: give `key_file`, and remove `tpm`")


def _old_version_is_oldest_safe(value: object) -> object:
    return "1.2" if value in _OLD_TLS else value


MinTlsVersion = Annotated[
    TlsVersion,
    BeforeValidator(_old_version_is_oldest_safe, json_schema_input_type=Literal["1.0", "1.1", "1.2", "1.3"]),
    Ignored("TLS 1.0 and 1.1 are broken: 1.2 is the oldest version spoken here", values=_OLD_TLS),
]
"""`1.2` or `1.3`; older ones are read as 1.2, with a warning."""


class TlsFiles(Block):
    """What TLS is made of, on either side."""

    cert_file: str | None = None
    """PEM file of our own certificate chain."""
    cert_pem: Secret | None = None
    """The chain itself, instead of a file."""
    key_file: str | None = None
    """PEM file of its private key."""
    key_pem: Secret | None = None
    """The key itself, instead of a file (`${env:KEY}`)."""
    min_version: MinTlsVersion = "1.2"
    """Oldest TLS version accepted."""
    max_version: TlsVersion | None = None
    """Newest TLS version accepted; the newest there is if left out."""
    reload_interval: Duration = 0.0
    """How often the files are looked at for change; 0 reloads on SIGHUP alone."""
    cipher_suites: Annotated[list[str], _CIPHERS] = Field(default_factory=list)
    """Accepted for the Collector's sake: OpenSSL's own list is used."""
    include_insecure_cipher_suites: Annotated[bool, _CIPHERS] = False
    """Accepted for the Collector's sake: never."""
    curve_preferences: Annotated[list[str], _CURVES] = Field(default_factory=list)
    """Accepted for the Collector's sake: OpenSSL's own list is used."""
    tpm: Annotated[None, _TPM] = None
    """Refused: keys in a trusted platform module cannot be used."""

    @model_validator(mode="after")
    def _one_of_each(self) -> TlsFiles:
        for what in ("cert", "key", "ca"):
            if getattr(self, f"{what}_file", None) and getattr(self, f"{what}_pem", None):
                message = f"{what}_file and {what}_pem say the same thing: give one of them"
                raise ValueError(message)
        if bool(self.cert_file or self.cert_pem) != bool(self.key_file or self.key_pem):
            message = "cert_file and key_file belong together: give both or neither"
            raise ValueError(message)
        if self.max_version is not None and self.max_version < self.min_version:
            message = f"max_version ({self.max_version}) is below min_version ({self.min_version})"
            raise ValueError(message)
        return self


class TlsServer(TlsFiles):
    """TLS of a server; mutual TLS when `client_ca_file` is given."""

    client_ca_file: str | None = None
    """PEM file of the authorities that clients must be signed by; clients without such a certificate are refused."""
    client_ca_file_reload: Annotated[bool, Ignored("`reload_interval` looks at every file")] = False
    """Accepted for the Collector's sake: `reload_interval` looks at this file as well."""
    ca_file: Annotated[str | None, _NOT_THE_CLIENTS] = None
    """Accepted for the Collector's sake: clients are verified by `client_ca_file`."""
    ca_pem: Annotated[Secret | None, _NOT_THE_CLIENTS] = None
    """Accepted for the Collector's sake: clients are verified by `client_ca_file`."""
    include_system_ca_certs_pool: Annotated[bool, _NOT_THE_CLIENTS] = False
    """Accepted for the Collector's sake: clients are verified by `client_ca_file`."""

    @model_validator(mode="after")
    def _has_certificate(self) -> TlsServer:
        if not (self.cert_file or self.cert_pem):
            message = "a server needs cert_file and key_file: give both, or remove `tls`"
            raise ValueError(message)
        return self


class TlsClient(TlsFiles):
    """TLS of a client."""

    insecure: bool = False
    """Speak without TLS."""
    insecure_skip_verify: bool = False
    """Do not verify the server's certificate."""
    ca_file: str | None = None
    """PEM file of the authorities that sign the server's certificate; the system's if left out."""
    ca_pem: Secret | None = None
    """Those authorities themselves, instead of a file."""
    include_system_ca_certs_pool: bool = False
    """Trust the system's authorities beside `ca_file`."""
    server_name_override: str | None = None
    """Name expected in the server's certificate, if not the endpoint's."""
