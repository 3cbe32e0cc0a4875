"""The static files of the page: HTML, style sheets and scripts, read once when the extension is built."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.extensions.ui.login import HEADERS
from otelwp_agent.transport.http_messages import Request, Response, Route

if TYPE_CHECKING:
    from otelwp_agent.extensions.ui.login import Login

FOLDER = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def asset_routes(login: Login) -> dict[str, Route]:
    """Return a route for each file, and `/` for the page itself. The files are public: they contain no data."""
    routes = {f"/static/{file.name}": _route(login, file) for file in sorted(FOLDER.iterdir()) if file.suffix in TYPES}
    routes["/"] = routes.pop("/static/index.html")
    return routes


def _route(login: Login, file: Path) -> Route:
    body = file.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = (*HEADERS, ("ETag", tag), ("Cache-Control", "no-cache"))
    full = Response(200, body, TYPES[file.suffix], headers)
    unchanged = Response(304, headers=headers)

    def serve(request: Request) -> Response:
        return unchanged if request.headers.get("if-none-match") == tag else full

    return login.public(serve)
