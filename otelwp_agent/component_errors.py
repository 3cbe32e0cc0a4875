"""Report what goes wrong inside a component under the component's own id: `processors/acme_redact: …`.

Components may come from third parties. An error that the component raises on purpose (`AgentError`, `ValueError` for a
setting, `OSError` for a resource that it lacks) becomes one line. Any other exception is a bug in the component: its
traceback is logged once, by the component's own logger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import Component
from otelwp_agent.errors import AgentError, InternalError, StartError
from otelwp_agent.telemetry.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog


_ON_PURPOSE = (AgentError, ValueError, OSError)
"""What a component raises to report a wrong setting or a missing resource; anything else is a bug."""


def failure(name: str, what: str, error: Exception, log: structlog.typing.FilteringBoundLogger) -> StartError:
    """Return the one line that says what failed; log the traceback if the error is a bug."""
    text = _one_line(error)
    if isinstance(error, _ON_PURPOSE):
        log.debug("component failed", exc_info=error)
        return StartError(text if name in text else f"{name}: {what}: {text}")
    log.error("component failed: a bug in the component", exc_info=error)
    return StartError(f"{name}: {what}: {type(error).__name__}: {text} (a bug in the component; see the log)")


def component_in(error: BaseException) -> Component | None:
    """Return the component whose method raised: the innermost in the traceback, or `None` if there is none."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_argcount:
            subject = frame.f_locals.get(frame.f_code.co_varnames[0])
            if isinstance(subject, Component):
                found = subject
        trace = trace.tb_next
    return found


class Bugs:
    """Reports exceptions that components of one pipeline raise by mistake, each place in the code once in full."""

    def __init__(self, log: Callable[[], structlog.typing.FilteringBoundLogger]) -> None:
        """Report with the component's own logger, or with `log()` if no component is found in a traceback."""
        self._log = log
        self._seen: dict[tuple[str, str, str, int], LogLimit] = {}

    def report(self, error: Exception, clock: Callable[[], float]) -> InternalError:
        """Log the error under the component's id, and return what the sender of the batch is answered."""
        component = component_in(error)
        log = self._log() if component is None else component.context.log
        place = _place(error)
        limit = self._seen.get(place)
        if limit is None:
            limit = self._seen[place] = LogLimit(clock)
            limit.take()
            log.error("component failed: a bug in the component", exc_info=error)
        elif times := limit.take():
            log.error("component failed again", times=times, error=repr(error), at=f"{place[2]}:{place[3]}")
        return InternalError("internal error; the agent's log has the details")


def _place(error: Exception) -> tuple[str, str, str, int]:
    """Return what tells one bug from another: the component, the type of the error, the file and the line."""
    component = component_in(error)
    trace, file, line = error.__traceback__, "", 0
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return (str(component.context.id) if component is not None else "", type(error).__name__, file, line)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
