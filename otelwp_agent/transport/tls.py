"""TLS of servers and clients: certificates from PEM files or from the configuration itself, reloaded while running.

All files are read and checked before anything changes: certificate and key must match, authorities must be valid. An
invalid file raises `StartError`, at the start and at a reload; after a failed reload the previous certificates stay in
use.

gRPC has its own TLS and needs PEM bytes: `pem`. `beyond_grpc` returns the settings that gRPC does not support.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.config import blocks
    from otelwp_agent.config.types import Secret

ALPN = ("http/1.1",)
"""Application protocols of our HTTP (RFC 7301)."""
ALPN_GRPC = ("h2",)
"""Application protocols of gRPC."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATE_MARK = b"-----BEGIN CERTIFICATE-----"
_KEY_MARK = b"PRIVATE KEY-----"
_ENCRYPTED_MARKS = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True)
class Pem:
    """The contents of the PEM files; empty bytes for a file that is not configured."""

    certificate: bytes
    """Our own certificate chain, leaf first."""
    key: bytes = field(repr=False)
    """The private key of the certificate."""
    authorities: bytes
    """Certificates of the authorities that are trusted to sign the peer's certificate."""


class ServerTls:
    """TLS of a server; mutual TLS with `client_ca_file`. `name` is the component's name in error messages.

    `context` always stays the same object: pass it to the server once. Each handshake uses the certificates loaded
    last.
    """

    def __init__(self, settings: blocks.TlsServer, *, name: str = "", alpn: Sequence[str] = ALPN) -> None:
        """Read the files; raise a `StartError` that contains the file and the problem."""
        self.settings = settings
        self._alpn = alpn
        self._sources = _Sources(settings, settings.client_ca_file, "client_ca_file", name)
        self.pem, self._current = self._load()
        self._removed: set[object] = set()
        """Names of the authorities that the last reload has removed."""
        self.context = self._fresh(self.pem)
        self.context.sni_callback = self._use_current

    def reload(self) -> bool:
        """Read the files again; new handshakes use them. Raise `StartError`, and keep the old, if they are bad.

        Returns whether an authority of clients was removed.
        """
        before = _authorities(self._current)
        self.pem, self._current = self._load()
        self._removed = {name for name, _ in before - _authorities(self._current)}
        return bool(self._removed)

    def trusts(self, connection: ssl.SSLObject | None) -> bool:
        """Return whether the client's certificate is directly of an authority that the last reload has kept.

        False also if this is unknown: before the end of the handshake, and with an intermediate authority.
        """
        certificate = connection.getpeercert() if connection is not None else None
        issuer = certificate.get("issuer") if certificate else None
        return issuer not in self._removed and issuer in {name for name, _ in _authorities(self._current)}

    def changed(self) -> bool:
        """Whether a file is not the one that the last load looked at (whether that succeeded or not)."""
        return self._sources.changed()

    def _load(self) -> tuple[Pem, ssl.SSLContext]:
        pem = self._sources.read()
        return pem, self._fresh(pem)

    def _fresh(self, pem: Pem) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _limit_versions(context, self.settings)
        context.set_alpn_protocols(self._alpn)
        self._sources.load_own(context, pem)
        if pem.authorities:
            self._sources.load_authorities(context, pem)
            context.verify_mode = ssl.CERT_REQUIRED
            # A resumed session is not verified again, and a reload may have taken an authority away.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def _use_current(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        """Use the certificates loaded last for this handshake; OpenSSL calls this with or without a server name."""
        del server_name, context
        connection.context = self._current


class ClientTls:
    """TLS of a client. `name` is the component's name in error messages.

    `context` is another object after `reload`: read it for each connection.
    """

    def __init__(self, settings: blocks.TlsClient, *, name: str = "") -> None:
        """Read the files; raise a `StartError` that contains the file and the problem."""
        self.settings = settings
        self.server_name = settings.server_name_override
        self._sources = _Sources(settings, settings.ca_file, "ca_file", name, settings.ca_pem)
        self.pem, self.context = self._load()

    def reload(self) -> None:
        """Read the files again; new connections use them.

        If they are invalid, raises `StartError` and keeps the old ones.
        """
        self.pem, self.context = self._load()

    def changed(self) -> bool:
        """Return whether a file has changed since the last load, even if that load failed."""
        return self._sources.changed()

    def _load(self) -> tuple[Pem, ssl.SSLContext]:
        settings = self.settings
        pem = self._sources.read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _limit_versions(context, settings)
        context.set_alpn_protocols(ALPN)
        if settings.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if pem.authorities:
            self._sources.load_authorities(context, pem)
        if not pem.authorities or settings.include_system_ca_certs_pool:
            context.load_default_certs()
        if pem.certificate:
            self._sources.load_own(context, pem)
        return pem, context


def beyond_grpc(settings: blocks.TlsServer | blocks.TlsClient) -> str | None:
    """Return which of these settings grpcio does not support, and what to do instead; `None` if it supports all.

    grpcio always allows TLS 1.2 and 1.3, and always verifies (grpc issue 37305; last checked with 1.85).
    """
    if settings.min_version != "1.2":
        return "gRPC cannot refuse TLS 1.2: remove min_version, or use HTTP"
    if settings.max_version == "1.2":
        return "gRPC cannot refuse TLS 1.3: remove max_version, or use HTTP"
    if getattr(settings, "insecure_skip_verify", False):
        return (
            "gRPC always verifies the server: give its authority as ca_file (and server_name_override if the name "
            "differs) and remove insecure_skip_verify, or use HTTP"
        )
    return None


def _authorities(context: ssl.SSLContext) -> set[tuple[object, object]]:
    """Return the name and serial number of each authority that a context trusts."""
    return {(authority.get("subject"), authority.get("serialNumber")) for authority in context.get_ca_certs()}


def system_authorities() -> bytes:
    """Return the system's certificate authorities as PEM; empty if OpenSSL finds no bundle."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem"):
        if path:
            with contextlib.suppress(OSError):
                return Path(path).read_bytes()
    return b""


class _Sources:
    """Source of the PEM data, state of the files at the last load, and errors that name the invalid file."""

    def __init__(
        self,
        settings: blocks.TlsFiles,
        authorities_file: str | None,
        authorities_key: str,
        name: str,
        authorities_pem: Secret | None = None,
    ) -> None:
        self._head = f"{name}: tls: " if name else "tls: "
        self._files = {"cert_file": settings.cert_file, "key_file": settings.key_file}
        self._inline = {
            "cert_file": settings.cert_pem,
            "key_file": settings.key_pem,
            authorities_key: authorities_pem,
        }
        self._files[authorities_key] = authorities_file
        self._authorities_key = authorities_key
        self._seen: dict[str, tuple[int, ...]] = {}

    def read(self) -> Pem:
        """Read all configured files."""
        self._seen = self._look()
        certificate, key = self._read("cert_file"), self._read("key_file")
        authorities = self._read(self._authorities_key)
        for what, data in (("cert_file", certificate), (self._authorities_key, authorities)):
            if data and _CERTIFICATE_MARK not in data:
                raise self._error(what, "contains no PEM certificate (`-----BEGIN CERTIFICATE-----`)")
        if certificate and _KEY_MARK not in key:
            raise self._error("key_file", "contains no PEM private key (`-----BEGIN PRIVATE KEY-----`)")
        if any(mark in key for mark in _ENCRYPTED_MARKS):
            raise self._error("key_file", "is encrypted with a passphrase; give the key unencrypted")
        return Pem(certificate, key, authorities)

    def changed(self) -> bool:
        return self._look() != self._seen

    def load_own(self, context: ssl.SSLContext, pem: Pem) -> None:
        """Load certificate and key, and check that they match."""
        try:
            with _as_file(pem.key.rstrip() + b"\n" + pem.certificate) as path:
                context.load_cert_chain(path)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                message = f"does not match the certificate in {self._place('cert_file')}; give the key made with it"
                raise self._error("key_file", message) from error
            reason = f"OpenSSL refuses them: {error.reason or error}"
            raise self._error("cert_file", f"and {self._place('key_file')} are not a valid pair; {reason}") from error

    def load_authorities(self, context: ssl.SSLContext, pem: Pem) -> None:
        try:
            context.load_verify_locations(cadata=pem.authorities.decode("ascii", "replace"))
        except ssl.SSLError as error:
            message = f"contains a damaged certificate; OpenSSL refuses it: {error.reason or error}"
            raise self._error(self._authorities_key, message) from error

    def _read(self, what: str) -> bytes:
        inline, path = self._inline.get(what), self._files[what]
        if inline is not None:
            return inline.get_secret_value().encode()
        if not path:
            return b""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise self._error(what, "does not exist") from None
        except IsADirectoryError:
            raise self._error(what, "is a directory; give the PEM file in it") from None
        except PermissionError:
            raise self._error(what, f"cannot be read: permission denied to user id {os.geteuid()}") from None
        except OSError as error:
            raise self._error(what, f"cannot be read: {error.strerror}") from error

    def _look(self) -> dict[str, tuple[int, ...]]:
        seen: dict[str, tuple[int, ...]] = {}
        for path in self._files.values():
            if path:
                try:
                    stat = os.stat(path)  # noqa: PTH116 - only the fields of the result are needed
                    seen[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                except OSError:
                    seen[path] = ()
        return seen

    def _place(self, what: str) -> str:
        if self._inline.get(what) is not None:
            return what.replace("_file", "_pem")
        return f"{what} {self._files[what]}"

    def _error(self, what: str, message: str) -> StartError:
        return StartError(f"{self._head}{self._place(what)} {message}")


def _limit_versions(context: ssl.SSLContext, settings: blocks.TlsFiles) -> None:
    context.minimum_version = _VERSIONS[settings.min_version]
    if settings.max_version is not None:
        context.maximum_version = _VERSIONS[settings.max_version]


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Provide `data` as a path while OpenSSL reads it: in memory if the system supports it, else in a private file.

    OpenSSL reads a certificate and its key only from paths, and the configured paths may have changed since they were
    checked.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:  # macOS, Windows
        with tempfile.NamedTemporaryFile(delete=False) as file:  # readable by this user alone
            file.write(data)
        try:
            yield file.name
        finally:
            os.unlink(file.name)  # noqa: PTH108 - same style as closing the descriptor
