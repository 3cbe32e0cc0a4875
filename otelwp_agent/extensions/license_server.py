"""Serve a licence server: renew the licences of agents from the control store.

`GET /validate` with the header `X-License-Key` (the text of a licence) answers `{"valid": true, "tier": "pro",
"features": […], "expires": "2027-12-31", "license": "…"}`. Agents use only `license`, the terms of the store as signed
text; the other fields are for other clients. A licence that was revoked or has expired is answered in the same way,
with `"valid": false` and a `reason`. docs/topics/licences.md shows how to issue, renew and revoke licences.

Agents accept a licence server on another host only with TLS: configure `tls`, or a proxy in front of it.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      license_server:
        endpoint: 127.0.0.1:13150
        signing_key_file: /etc/otelwp/license-signing.pem
    service:
      extensions: [control_store, license_server]
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs

import orjson
from pydantic import Field

from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import HttpServer
from otelwp_agent.config.references import ControlStoreRef
from otelwp_agent.config.types import Endpoint
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.errors import StoreError
from otelwp_agent.errors import StartError
from otelwp_agent.licensing.decision import with_license
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.online import KEY_HEADER, NONCE, PATH
from otelwp_agent.licensing.public_keys import key_id, load_keys
from otelwp_agent.licensing.signatures import (
    LicenseError,
    public_text,
    read_private_key,
    sign_license,
    verify_license,
)
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport import http_server
from otelwp_agent.transport.http_messages import JSON, Request, Response, Route
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from sqlalchemy import Connection

    from otelwp_agent.component import Context
    from otelwp_agent.control.operations.licenses import StoredLicense

FRESH = 5.0
"""Seconds for which the terms of a licence are used before they are read from the store again."""
MAX_KEPT = 10_000
"""Most licences whose terms are kept."""
RETRY_AFTER = 300
"""Seconds after which a client may ask again while the store is not available."""

REQUESTS = Instrument(
    "otelwp_license_server_requests",
    "Requests for a renewal by result: valid, not_valid (revoked, expired or not yet valid), refused (no licence of "
    "this issuer), unknown (not in the store) or unavailable (the store cannot be read).",
    labels=("extension", "result"),
)
_RESULTS = ("valid", "not_valid", "refused", "unknown", "unavailable")
_MAX_BODY = 1024
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Config(HttpServer, ComponentConfig):
    """Settings of `license_server`."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13150")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    signing_key_file: str = Field(min_length=1)
    """File with the private key that signs renewals; `otelwp-agent license keygen` writes one. It is read again when it
    changes."""
    public_keys: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default_factory=list, max_length=32)
    """Public keys of earlier signing keys, whose licences are still renewed: the text of a key, or a file with a key
    per line."""


class LicenseServer(Extension):
    """Answers requests for renewals."""

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` returns the time in seconds since 1970. Raise `StartError` for missing packages."""
        super().__init__(context)
        try:
            from otelwp_agent.control.operations.licenses import find_license  # noqa: PLC0415 - may be missing
        except ModuleNotFoundError as error:
            raise StartError(
                f"extensions/{context.id}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[control]'`"
            ) from error
        self._find: Callable[[Connection, str], StoredLicense | None] = find_license
        self._access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self._wall = wall
        self._older = config.public_keys
        self._keys: Mapping[str, str] = {}
        self._signing: Ed25519PrivateKey | None = None
        self._kept: dict[str, tuple[float, StoredLicense | None]] = {}
        self._failures = LogLimit(context.clock)
        name = str(context.id)
        self._results = {each: context.registry.counter(REQUESTS, extension=name, result=each) for each in _RESULTS}
        self._file = WatchedFile(config.signing_key_file, self._use_key, name=f"extensions/{name}", log=context.log)
        settings = config.model_copy(update={"max_request_body_size": min(config.max_request_body_size, _MAX_BODY)})
        routes = {PATH: Route(self._answer, methods=("GET", "HEAD"))}
        self._server = http_server.HttpServer(
            settings, routes, name=f"extension {name}", log=context.log, gate=context.gate(config)
        )

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Read the keys and listen; raise `StartError`."""
        self._file.start()
        try:
            await self._server.start()
        except BaseException:
            self._file.stop()
            raise
        self.context.log.info("licence server listening", address=self._server.address, port=self.port)

    async def shutdown(self) -> None:
        """Stop listening."""
        self._file.stop()
        await self._server.shutdown(grace=1.0)

    def refresh(self) -> None:
        """Reload the certificate files, and the signing key if it has changed."""
        self._file.check()
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
        address = self._server.address
        scheme = "http" if self._server.settings.tls is None else "https"
        return {"license": address if address.startswith("unix:") else f"{scheme}://{address}{PATH}"}

    def health(self) -> ComponentHealth | None:
        """Report a signing key that could not be read again."""
        problem = self._file.problem
        return ComponentHealth(self.context.kind, str(self.context.id), not problem, problem)

    def _use_key(self, pem: str) -> Mapping[str, object]:
        signing = read_private_key(pem.encode())
        public = public_text(signing)
        self._keys = {**load_keys(self._older), key_id(public): public}
        self._signing = signing
        return {"key": key_id(public)}

    # -- requests

    def _answer(self, request: Request) -> Response | asyncio.Future[Response]:
        nonces = parse_qs(request.query, keep_blank_values=True, max_num_fields=10).get(NONCE, [])
        if len(nonces) > 1 or (nonces and not _NONCE.fullmatch(nonces[0])):
            return self._refused(400, f"`{NONCE}` must be given at most once, with 1 to 64 of A-Z a-z 0-9 - _")
        text = request.headers.get(KEY_HEADER.lower(), "")
        if not text:
            return self._refused(401, f"send the licence in the header {KEY_HEADER}")
        try:
            asked = verify_license(text, self._keys)
        except LicenseError as error:
            return self._refused(403, str(error))
        nonce = nonces[0] if nonces else None
        known = self._kept.get(asked.jti)
        if known is not None and self.context.clock() - known[0] < FRESH:
            return self._signed(known[1], nonce)
        return spawn(self._read_and_sign(asked.jti, nonce), name="renew a licence from the store")

    async def _read_and_sign(self, id_: str, nonce: str | None) -> Response:
        try:
            found = await self._access.store.read(lambda connection: self._find(connection, id_))
        except StoreError as error:
            self._results["unavailable"].add()
            if times := self._failures.take():
                self.context.log.warning("licences not renewed", times=times, error=str(error))
            return _json(503, {"valid": False, "reason": "try again later"}, (("Retry-After", str(RETRY_AFTER)),))
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[id_] = self.context.clock(), found
        return self._signed(found, nonce)

    def _signed(self, stored: StoredLicense | None, nonce: str | None) -> Response:
        """Return the signed terms of a licence. What is not signed says nothing to agents."""
        if stored is None or self._signing is None:
            self._results["unknown"].add()
            return _json(404, {"valid": False, "reason": "this licence is not known here"})
        now = self._wall()
        terms = stored.signable(now, nonce)
        state = with_license(terms, now, 0.0)
        valid = state.basis is Basis.LICENSE
        self._results["valid" if valid else "not_valid"].add()
        body: dict[str, object] = {
            "valid": valid,
            "tier": terms.tier,
            "features": terms.features if valid else [],
            "expires": terms.expires.isoformat(),
            "license": sign_license(terms, self._signing),
        }
        return _json(200, body if valid else {**body, "reason": state.reason})

    def _refused(self, status: int, reason: str) -> Response:
        self._results["refused"].add()
        return _json(status, {"valid": False, "reason": reason})


def _json(status: int, body: dict[str, object], headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, orjson.dumps(body), JSON, (("Cache-Control", "no-store"), *headers))


FACTORY = Factory(
    Kind.EXTENSION,
    "license_server",
    Config,
    LicenseServer,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    instruments=(REQUESTS,),
)
