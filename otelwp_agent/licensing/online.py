"""Renew a licence through its server: `GET /validate` with the header `X-License-Key`.

The server answers `{"valid": …, "features": […], "license": "…"}`. Only `license` counts for the agent: the terms as
signed text, which contain the nonce of the request. So neither an attacker on the way nor a wrong server can extend or
revoke a licence; everything that is not such an answer is an outage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from otelwp_agent import __version__
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import ConsumeError, StartError
from otelwp_agent.licensing.signatures import LicenseError, verify_license
from otelwp_agent.telemetry.redaction import redact_url
from otelwp_agent.transport.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import structlog

    from otelwp_agent.licensing.license import License

KEY_HEADER = "X-License-Key"
PATH = "/validate"
NONCE = "nonce"
"""Parameter of the query, which the signed terms of the answer repeat."""
TIMEOUT = 10.0
"""Seconds in which the server must have answered."""
MAX_ANSWER = 64 * 2**10
"""Maximum size of an answer in bytes."""
REASONS = (
    "unreachable",
    "timeout",
    "redirect",
    "status",
    "too_large",
    "malformed",
    "unsigned",
    "algorithm",
    "signature",
    "unknown_key",
    "product",
    "claims",
    "other_license",
    "replayed",
    "internal",
)
"""All reasons of a `RefreshError`."""

_OK = 200
_REDIRECTS = range(300, 400)


class RefreshError(Exception):
    """A licence could not be renewed; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason and the message."""
        super().__init__(message)
        self.reason = reason


async def renew(
    ask: Callable[[str, str], Awaitable[str]], text: str, current: License, keys: Mapping[str, str], nonce: str
) -> tuple[str, License]:
    """Return the newest terms of a licence, as signed text and read; raise `RefreshError`.

    `ask` gets the licence and the nonce, and returns the signed text of the answer.
    """
    answer = await ask(text, nonce)
    try:
        terms = verify_license(answer, keys)
    except LicenseError as error:
        raise RefreshError(error.reason, f"the answer of the licence server is not valid: {error}") from None
    if terms.jti != current.jti:
        raise RefreshError("other_license", f"the licence server has answered for licence {terms.jti}")
    if terms.nonce != nonce:
        raise RefreshError("replayed", "the answer of the licence server belongs to another request")
    return answer, terms


class LicenseServerClient:
    """Asks the licence server at `url`. Redirects are not followed, because the header contains the licence."""

    def __init__(self, url: str, ca_file: str | None, log: structlog.typing.FilteringBoundLogger) -> None:
        """Open nothing. Trust `ca_file`; with `None`, the system's authorities."""
        settings = blocks.HttpClient.model_validate({"tls": {"ca_file": ca_file}})
        self._settings = settings.model_copy(update={"timeout": TIMEOUT, "disable_keep_alives": True})
        self._endpoint = Endpoint(url)
        self._log = log

    async def ask(self, text: str, nonce: str) -> str:
        """Return the signed text of the server's answer, not yet verified; raise `RefreshError`."""
        client = HttpClient(self._settings, self._endpoint, name="service.license", log=self._log)
        headers = ((KEY_HEADER, text), ("Accept", "application/json"), ("User-Agent", f"otelwp-agent/{__version__}"))
        try:
            await client.start()
            path = f"{self._endpoint.path}{PATH}?{NONCE}={nonce}"
            response = await client.request("GET", path, b"", headers)
        except StartError as error:
            raise RefreshError("unreachable", str(error)) from error
        except ConsumeError as error:
            raise RefreshError("timeout" if error.reason == "timeout" else "unreachable", str(error)) from error
        finally:
            await client.aclose()
        if response.status in _REDIRECTS:
            target = redact_url(response.headers.get("location", "another address"))
            raise RefreshError("redirect", f"{client.address} redirects to {target}: correct `service.license.url`")
        if response.status != _OK:
            raise RefreshError("status", f"{client.address} answered with HTTP {response.status}")
        if not response.complete or len(response.body) > MAX_ANSWER:
            raise RefreshError("too_large", f"the answer of {client.address} is larger than {MAX_ANSWER} bytes")
        return _signed_text(response.body, client.address)


def _signed_text(body: bytes, server: str) -> str:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefreshError("malformed", f"the answer of {server} is not JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise RefreshError("malformed", f"the answer of {server} is not a JSON object")
    text = found.get("license")
    if not isinstance(text, str):
        raise RefreshError("unsigned", f"the answer of {server} is not signed: it has no text `license`")
    return text
