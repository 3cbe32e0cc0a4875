"""Live updates of the page by server-sent events: the state of the graph, while the page is open.

One timer serves all clients: the graph is read once for each interval. Without clients, there is no timer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.errors import ConsumeError
from otelwp_agent.extensions.ui.login import HEADERS, problem
from otelwp_agent.transport.http_messages import Head, Request, Response
from otelwp_agent.transport.http_stream import EventStream

if TYPE_CHECKING:
    from otelwp_agent.component import Context

INTERVAL = 2.0
"""Seconds between two events."""
MOST_STREAMS = 32
"""Most browsers that get live updates at once; more are refused and read the data once."""

GRAPH = Request(Head("GET", "/graph", {}))


class LiveUpdates:
    """Sends the graph to the clients of `/api/live` as events of the type `graph`."""

    def __init__(self, context: Context) -> None:
        """Start without clients."""
        self._host = context.host
        self._log = context.log
        self._streams: set[EventStream] = set()
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, _request: Request) -> Response | asyncio.Future[Response]:
        """Return a stream of events; 503 if there are too many streams."""
        if len(self._streams) >= MOST_STREAMS:
            return problem(503, "too many pages are open")
        started: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        started.set_result(EventStream(self._opened, self._ended, HEADERS))
        return started

    def close(self) -> None:
        """End all streams."""
        for stream in tuple(self._streams):
            stream.close()
        self._stop()

    def _opened(self, stream: EventStream) -> None:
        self._streams.add(stream)
        graph = self._graph()
        if graph is not None:
            stream.send("graph", graph)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)

    def _ended(self, stream: EventStream) -> None:
        self._streams.discard(stream)
        if not self._streams:
            self._stop()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)
        graph = self._graph()
        if graph is not None:
            for stream in self._streams:
                stream.send("graph", graph)

    def _graph(self) -> bytes | None:
        handler = self._host.control("/graph")
        if handler is None:
            return None
        try:
            response = handler(GRAPH)
        except ConsumeError:
            return None
        return response.body if isinstance(response, Response) and response.status == 200 else None  # noqa: PLR2004 - an HTTP status

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
