"""Fetch small documents over HTTP, with bounded size and time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from otelwp_agent import __version__
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import MalformedError
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http

if TYPE_CHECKING:
    import structlog

MAX_DOCUMENT = 2**19
"""Maximum size of a document in bytes."""
MAX_CLIENTS = 2
"""Servers that a client is kept for: that of an issuer's discovery document, and that of its keys."""

_HEADERS = (("Accept", "application/json"), ("User-Agent", f"otelwp-agent/{__version__}"))
_OK = 200


class Documents:
    """Fetches documents of one source. Redirects are not followed: they are errors that name the target."""

    def __init__(self, ca_file: str, timeout: float, *, name: str, log: structlog.typing.FilteringBoundLogger) -> None:
        """Trust `ca_file` (the system's authorities if it is ""); each request takes at most `timeout` seconds."""
        settings = blocks.HttpClient.model_validate({"tls": {"ca_file": ca_file or None}})
        self._settings = settings.model_copy(update={"timeout": timeout})
        self._name = name
        self._log = log
        self._clients: dict[str, HttpClient] = {}

    async def prepare(self, url: str) -> None:
        """Read the certificates for requests to the server of `url`; raise `StartError`. Nothing is sent."""
        await self._client(url)

    async def get(self, url: str) -> bytes:
        """Return the document at `url`; raise `ConsumeError` that says what is wrong."""
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
        client = await self._client(url)
        response = await client.request("GET", path, b"", _HEADERS)
        if response.status != _OK:
            raise from_http(response.status, response.headers, response.body)
        if not response.complete or len(response.body) > MAX_DOCUMENT:
            raise MalformedError(f"the answer is larger than {MAX_DOCUMENT} bytes")
        return response.body

    def reload_tls(self) -> None:
        """Read the certificates again; raise `StartError` and keep the old ones if they are invalid."""
        for client in self._clients.values():
            client.reload_tls()

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _client(self, url: str) -> HttpClient:
        """Return the client for the server of `url`."""
        parts = urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}"
        client = self._clients.get(server)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:  # the source has moved its documents
                await self.aclose()
            client = HttpClient(self._settings, Endpoint(server), name=self._name, log=self._log)
            await client.start()
            self._clients[server] = client
        return client
