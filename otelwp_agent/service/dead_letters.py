"""Handlers of the control socket for dead letters: list, resend, purge."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from otelwp_agent.dead_letters.file import Reading, read_letters
from otelwp_agent.dead_letters.resend import Choice, Resending
from otelwp_agent.errors import AgentError, MalformedError
from otelwp_agent.service.control import answer, json_body, refusal
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import structlog

    from otelwp_agent.dead_letters.sink import DeadLetterFile
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.pipeline.graph import Graph
    from otelwp_agent.sending.sender import SignalSender
    from otelwp_agent.service.control import Control
    from otelwp_agent.transport.http_messages import Request, Response

LONGEST_LIST = 1000
"""Largest number of letters in one answer, the newest ones; clients that need more read the file."""

LONGEST_WAIT = 3600.0
"""Longest time that a request may wait for the outcome, in seconds."""

_NONE_KEPT = "this agent keeps no dead letters: set `service.journal` or `service.dead_letter.path`"


class DeadLetterRoutes:
    """Handlers for one agent. `sink` and `graph` return the current dead-letter file and graph."""

    def __init__(
        self,
        sink: Callable[[], DeadLetterFile | None],
        graph: Callable[[], Graph],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Create the handlers; `add_to` registers them."""
        self._sink = sink
        self._graph = graph
        self._log = log
        self._running: tuple[Resending, asyncio.Task[None]] | None = None

    def add_to(self, control: Control) -> None:
        """Serve them."""
        control.add("/dead-letters", self.list, ("GET",))
        control.add("/dead-letters/resend", self.resend)
        control.add("/dead-letters/purge", self.purge)

    def stop(self) -> None:
        """Stop resending; letters that were not delivered are kept."""
        if self._running is not None:
            self._running[1].cancel()
            self._running = None

    def list(self, _request: Request) -> Response | asyncio.Future[Response]:
        """Answer with the path of the file and the newest letters in it."""
        sink = self._sink()
        if sink is None:
            return refusal(_NONE_KEPT, HTTPStatus.CONFLICT)
        return _later(self._list(sink))

    def resend(self, request: Request) -> Response | asyncio.Future[Response]:
        """Resend letters: `{"ids": […]}` or `{"all": true}`, with `exporter`, `to` and `wait` (seconds).

        The answer is sent when all are done, or after `wait`; pending letters are then resent in the background.
        """
        sink, data = self._sink(), json_body(request)
        choice = Choice(_ids(data), _text(data, "exporter"), _text(data, "to"))
        wait = data.get("wait", 0)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= LONGEST_WAIT:
            raise MalformedError(f"`wait` must be a number of seconds from 0 to {LONGEST_WAIT:.0f}")
        if sink is None:
            return refusal(_NONE_KEPT, HTTPStatus.CONFLICT)
        if choice.to and not any(str(identifier) == choice.to for identifier in self._graph().exporters):
            message = f"exporter {choice.to!r} is not running; running exporters: {self._exporters()}"
            return refusal(message, HTTPStatus.CONFLICT)
        if self._running is not None and not self._running[1].done():
            progress = self._running[0].progress
            message = f"letters are already being resent, and {progress.pending} of {progress.letters} are not done"
            return refusal(f"{message}: wait until they are, or restart the agent", HTTPStatus.CONFLICT)
        resending = Resending(sink, choice, self._sender)
        task = spawn(self._run(resending), name="resend dead letters")
        self._running = (resending, task)
        return _later(self._outcome(resending, task, wait))

    def purge(self, request: Request) -> Response:
        """Remove letters: `{"ids": […]}` or `{"all": true}`, with `exporter`."""
        sink, data = self._sink(), json_body(request)
        choice = Choice(_ids(data), _text(data, "exporter"))
        if sink is None:
            return refusal(_NONE_KEPT, HTTPStatus.CONFLICT)
        try:
            purged = [letter.id for letter in sink.purge(choice.takes)]
        except OSError as error:
            return refusal(f"cannot rewrite {sink.path}: {error.strerror}", HTTPStatus.INTERNAL_SERVER_ERROR)
        self._log.info("dead letters purged", letters=len(purged))
        return answer({"purged": purged, "unknown": sorted(set(choice.ids or ()) - set(purged))})

    async def _list(self, sink: DeadLetterFile) -> Response:
        reading: Reading = await asyncio.to_thread(read_letters, sink.path)
        letters = [letter.to_json() for letter in reading.letters[-LONGEST_LIST:]]
        return answer(
            {
                "path": str(sink.path),
                "count": len(reading.letters),
                "damaged": reading.damaged,
                "letters": letters,
            }
        )

    async def _outcome(self, resending: Resending, task: asyncio.Task[None], wait: float) -> Response:
        await asyncio.wait({task}, timeout=wait)
        if resending.progress.error:
            return refusal(resending.progress.error, HTTPStatus.INTERNAL_SERVER_ERROR)
        return answer(resending.progress.to_json(), HTTPStatus.OK if task.done() else HTTPStatus.ACCEPTED)

    async def _run(self, resending: Resending) -> None:
        """Resend the letters and log the outcome."""
        progress = resending.progress
        try:
            await resending.run()
        except (AgentError, OSError) as error:
            progress.error = str(error)
            self._log.error("dead letters not resent", error=progress.error)
        else:
            self._log.info(
                "dead letters resent", delivered=progress.delivered, refused=progress.refused, kept=progress.kept
            )

    def _sender(self, name: str, signal: Signal) -> SignalSender | None:
        senders = self._graph().senders.items()
        return next((sender for (id_, of), sender in senders if of is signal and str(id_) == name), None)

    def _exporters(self) -> str:
        return ", ".join(str(identifier) for identifier in self._graph().exporters) or "none"


def _later(coroutine: Coroutine[Any, Any, Response]) -> asyncio.Task[Response]:
    async def guarded() -> Response:
        try:
            return await coroutine
        except (AgentError, OSError) as error:
            return refusal(str(error), HTTPStatus.INTERNAL_SERVER_ERROR)

    return spawn(guarded(), name="answer on the control socket")


def _ids(data: dict[str, Any]) -> frozenset[str] | None:
    """Return the ids in a request, or `None` for all letters."""
    ids = data.get("ids")
    if (ids is None) == (data.get("all") is not True):
        raise MalformedError('give the letters: `{"ids": ["…"]}` or `{"all": true}`')
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise MalformedError("`ids` must be a list of texts")
    return frozenset(ids)


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise MalformedError(f"`{name}` must be the id of an exporter")
    return value
