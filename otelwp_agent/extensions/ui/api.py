"""The JSON API of the page. All paths accept GET, unless stated otherwise; errors are `{"error": "…"}`.

* `/api/session`: `login` (whether one is needed), `user`, `may_change`. `POST /login` with `{"token": "…"}` begins a
  session (cookie), `POST /logout` ends it.
* `/api/graph`: the pipelines and components with their figures (`service/topology.py` describes the fields).
* `/api/live`: the same as server-sent events of the type `graph`, every 2 s.
* `/api/ledger`: the report of `otelwp-agent audit`: `balances`, `lines`, `problems`; at most 2 s old.
* `/api/dead-letters`: `path`, `count`, `damaged` and the newest `letters`; 409 if none are kept.
* `POST /api/dead-letters/resend` with `{"ids": […]}` or `{"all": true}`, and `wait` (seconds): resends letters.
* `/api/sampling?top=N`: `samplers`, each with its budget and its busiest keys.
* `/api/traces`: `stores` (traces and bytes in memory; empty without the exporter `recent_traces`), `plugins`, and
  `traces`, the newest first: `trace_id`, `name`, `service`, `site`, `route`, `path`, `method`, `status`, `type`,
  `start` (microseconds since 1970), `duration` (microseconds), `spans`, `errors`, `plugins`. Parameters: `id`
  (beginning of a trace id), `text` (part of the name, route or path), `site`, `plugin`, `error=1`, `min_ms`, `limit`
  (at most 200).
* `/api/trace?id=…`: the fields of one such trace, `resource`, `owners` (microseconds of own time by plugin, theme and
  core), `left_out` (spans that are not in the answer), and `items`, its spans: `id`, `parent`, `name`, `kind`, `start`,
  `duration`, `self`, `error`, `message`, `owner`, `service`, `scope`, `attributes`, `events`; 404 if it is not in
  memory.
* `/api/sites`: `sites`, each with its page time (`mean`, `low`, `high` in ms), `pages` and `errors` (both estimated
  from the sampled traces), `traces` and `last` (µs).
* `/api/blame`, with the parameters of `/api/traces` and `route` (a whole route): which plugins take the time of the
  pages that match. `pages`, `traces`, `measured` (traces that the times of plugins come from), `measure` (`profiled`,
  `lower_bound` or `spans`, see `traces/usage.py`), `since` and `until` (µs), `page` (page time), `owners` (`owner`,
  `mean`, `low`, `high` in ms per page, `share`, `pages`, `queries` per page, `errors`, `slowest`), `routes` (`route`,
  `pages`, `errors`, `mean`, `low`, `high`, `slowest_owner`), `timeline` (`at` in µs, `pages`, `owners` in ms per page).
* `/report.html?site=…`: the same for one site as one HTML file without scripts, to keep or to send.

Times of pages are those of the traces in memory. An interval contains the mean of all pages with a probability of 95 %;
`low` and `high` are null if there are too few traces.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from otelwp_agent.errors import AgentError, ConsumeError, MalformedError
from otelwp_agent.extensions.ui.login import HEADERS, answer, problem, refusal
from otelwp_agent.extensions.ui.report import report
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.traces.blame import blame, sites
from otelwp_agent.traces.store import MOST_FOUND, TraceQuery, TraceSource
from otelwp_agent.transport.http_messages import JSON, Request, Response, Route

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.extensions.ui.live import LiveUpdates
    from otelwp_agent.extensions.ui.login import Login
    from otelwp_agent.traces.blame import PageTime

LEDGER_FRESH = 2.0
"""Seconds for which a report is reused: making one looks at all objects of the process."""
_ID_BYTES = 16


class UiApi:
    """Answers the requests for data."""

    def __init__(
        self, context: Context, login: Login, live: LiveUpdates, wall: Callable[[], float] = time.time
    ) -> None:
        """Answer users that `login` admits; `wall` returns the time in seconds since 1970."""
        self._host = context.host
        self._clock = context.clock
        self._login = login
        self._live = live
        self._wall = wall
        self._ledger: tuple[float, Response] | None = None

    def routes(self) -> dict[str, Route]:
        """Return the routes by path."""
        login = self._login
        return {
            **login.routes(),
            "/api/graph": login.guard(self._control("/graph")),
            "/api/live": login.guard(self._live.subscribe),
            "/api/ledger": login.guard(self._report),
            "/api/dead-letters": login.guard(self._control("/dead-letters")),
            "/api/dead-letters/resend": login.guard(self._control("/dead-letters/resend"), ("POST",), changes=True),
            "/api/sampling": login.guard(self._control("/sampling")),
            "/api/traces": login.guard(_checked(self._search)),
            "/api/trace": login.guard(_checked(self._trace)),
            "/api/sites": login.guard(_checked(self._sites)),
            "/api/blame": login.guard(_checked(self._blame)),
            "/report.html": login.guard(_checked(self._report_file)),
        }

    def _control(self, path: str) -> Callable[[Request], Response | asyncio.Future[Response]]:
        """Return a handler that forwards requests to the handler of the control socket at `path`."""

        def handler(request: Request) -> Response | asyncio.Future[Response]:
            found = self._host.control(path)
            if found is None:
                return problem(503, "the agent is starting")
            try:
                response = found(request)
            except ConsumeError as error:
                return refusal(error)
            except AgentError as error:
                return problem(503, str(error))
            if isinstance(response, Response):
                return _with_headers(response)
            return spawn(_later(response), name="answer a request of the UI")

        return handler

    def _report(self, request: Request) -> Response | asyncio.Future[Response]:
        now = self._clock()
        if self._ledger is None or now - self._ledger[0] >= LEDGER_FRESH:
            response = self._control("/audit")(request)
            if not isinstance(response, Response):
                return response
            self._ledger = now, response
        return self._ledger[1]

    def _search(self, request: Request) -> Response:
        stores = [source.store for source in self._host.providers(TraceSource)]
        query = query_of(request.query)
        found = [trace for store in stores for trace in store.search(query)]
        found.sort(key=lambda trace: -trace["start"])
        plugins = sorted({name for store in stores for name in store.plugins()})
        return answer(
            {"stores": [store.state() for store in stores], "plugins": plugins, "traces": found[: query.limit]}
        )

    def _pages(self, query: TraceQuery) -> list[PageTime]:
        return [page for source in self._host.providers(TraceSource) for page in source.store.pages(query)]

    def _sites(self, _request: Request) -> Response:
        return answer({"sites": sites(self._pages(TraceQuery()))})

    def _blame(self, request: Request) -> Response:
        return answer(blame(self._pages(query_of(request.query))))

    def _report_file(self, request: Request) -> Response:
        query = query_of(request.query)
        if not query.site:
            raise MalformedError("give the `site`")
        text = report(query.site, blame(self._pages(query)), self._wall())
        disposition = ("Content-Disposition", 'attachment; filename="site-performance.html"')
        headers = (("Cache-Control", "no-store"), *HEADERS, disposition)
        return Response(200, text.encode(errors="replace"), "text/html; charset=utf-8", headers)

    def _trace(self, request: Request) -> Response:
        text = _one(parse_qs(request.query), "id")
        try:
            trace_id = bytes.fromhex(text)
        except ValueError:
            trace_id = b""
        if len(trace_id) != _ID_BYTES:
            raise MalformedError("`id` must have 32 hexadecimal digits")
        stores = [source.store for source in self._host.providers(TraceSource)]
        found = TraceSource.find(stores, trace_id)
        if found is None:
            return problem(404, "this trace is not in memory (any more)")
        return answer(found)


def query_of(text: str) -> TraceQuery:
    """Return the conditions in the query of a URL; raise `MalformedError` if one is invalid."""
    query = parse_qs(text)
    try:
        min_ms, limit = float(_one(query, "min_ms") or 0), int(_one(query, "limit") or 50)
    except ValueError as error:
        raise MalformedError("`min_ms` and `limit` must be numbers") from error
    if not (math.isfinite(min_ms) and min_ms >= 0 and 1 <= limit <= MOST_FOUND):
        raise MalformedError(f"`min_ms` must be at least 0, and `limit` from 1 to {MOST_FOUND}")
    return TraceQuery(
        trace_id=_one(query, "id"),
        text=_one(query, "text"),
        site=_one(query, "site"),
        plugin=_one(query, "plugin"),
        route=_one(query, "route"),
        error=_one(query, "error") not in ("", "0"),
        min_ms=min_ms,
        limit=limit,
    )


def _checked(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return `handler` with errors in the format of the API."""

    def checked(request: Request) -> Response:
        try:
            return handler(request)
        except ConsumeError as error:
            return refusal(error)

    return checked


async def _later(response: asyncio.Future[Response]) -> Response:
    try:
        return _with_headers(await response)
    except ConsumeError as error:
        return refusal(error)


def _with_headers(response: Response) -> Response:
    return Response(response.status, response.body, JSON, (("Cache-Control", "no-store"), *HEADERS))


def _one(query: dict[str, list[str]], name: str) -> str:
    """Return the last value of a parameter, or ""."""
    return query.get(name, [""])[-1].strip()
