"""Cross-origin resource sharing (Fetch standard): which web pages may send requests from a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.http_messages import Route

_ALWAYS_ALLOWED = ("Accept", "Content-Type", "Content-Encoding", "X-Requested-With")


class CorsRules:
    """The CORS headers of one server's responses."""

    def __init__(self, settings: blocks.Cors | None) -> None:
        """Allow the origins in `settings`; None allows no origin."""
        self._settings = settings if settings is not None and settings.allowed_origins else None
        origins = self._settings.allowed_origins if self._settings is not None else []
        self._origins = re.compile("|".join(re.escape(origin).replace(r"\*", ".*") for origin in origins))

    def headers(self, request: Mapping[str, str]) -> bytes:
        """Return the response headers for the request's origin; empty if the origin is not allowed."""
        cors = self._settings
        if cors is None:
            return b""
        origin = request.get("origin", "")
        if not origin or not self._origins.fullmatch(origin):
            return b""
        lines = f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n"
        if cors.exposed_headers:
            lines += f"Access-Control-Expose-Headers: {', '.join(cors.exposed_headers)}\r\n"
        return lines.encode("latin-1")

    def preflight(self, request: Mapping[str, str], route: Route) -> tuple[tuple[str, str], ...]:
        """Return the response headers for a browser's preflight request to `route`."""
        cors = self._settings
        allowed = list(_ALWAYS_ALLOWED)
        if cors is not None:
            allowed += cors.allowed_headers
            if "*" in cors.allowed_headers:
                allowed = [request.get("access-control-request-headers", "*")]
        answer = [("Access-Control-Allow-Methods", ", ".join(route.methods))]
        answer.append(("Access-Control-Allow-Headers", ", ".join(allowed)))
        if cors is not None and cors.max_age:
            answer.append(("Access-Control-Max-Age", str(cors.max_age)))
        return tuple(answer)
