"""Check URLs that secrets or keys are fetched from."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from otelwp_agent.config.types import Endpoint


def encrypted_url_problem(value: str, example: str, why: str) -> str:
    """Return why a URL must not be used, or "": it needs https, except on this host, and has no user or password.

    `example` is a valid URL and `why` the danger without encryption, both for messages.
    """
    try:
        url = Endpoint(value)
    except ValueError as error:
        return str(error)
    if not url.scheme or not url.host or url.unix:
        return f"{url.redacted} is not a URL: write one like `{example}`"
    if "@" in urlsplit(value).netloc:
        return "a URL must not contain a user or a password"
    if url.scheme == "http" and not _is_loopback(url.host):
        return f"{url.redacted} is not encrypted, so {why}: use https"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
