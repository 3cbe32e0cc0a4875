"""Report errors inside a component under the component's id: `processors/acme_redact: …`.

Components may come from third parties. An error that a component raises deliberately (`AgentError`, `ValueError` for a
setting, `OSError` for a missing resource) is reported in one line. Any other exception is a bug in the component: its
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


_DELIBERATE = (AgentError, ValueError, OSError)
"""Errors that a component raises to report a wrong setting or a missing resource; any other exception is a bug."""


def failure(name: str, what: str, error: Exception, log: structlog.typing.FilteringBoundLogger) -> StartError:
    """Return the error to report, in one line: component `name`, action `what` and the text of `error`.

    The traceback is logged as an error if `error` is a bug, else at debug level.
    """
    text = _one_line(error)
    if isinstance(error, _DELIBERATE):
        log.debug("component failed", exc_info=error)
        return StartError(text if name in text else f"{name}: {what}: {text}")
    log.error("component failed: a bug in the component", exc_info=error)
    return StartError(f"{name}: {what}: {type(error).__name__}: {text} (a bug in the component; see the log)")


def component_in(error: BaseException) -> Component | None:
    """Return the component whose method raised `error`: the innermost in the traceback, or `None` if there is none."""
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
    """Reports bugs in the components of one pipeline; the traceback is logged once for each place in the code."""

    def __init__(self, log: Callable[[], structlog.typing.FilteringBoundLogger]) -> None:
        """Use the component's own logger, or `log()` if no component is found in the traceback."""
        self._log = log
        self._seen: dict[tuple[str, str, str, int], LogLimit] = {}

    def report(self, error: Exception, clock: Callable[[], float]) -> InternalError:
        """Log `error` under the component's id; return the error to answer to the sender of the batch."""
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
    """Return the key that identifies a bug: the component, the type of the error, the file and the line."""
    component = component_in(error)
    trace, file, line = error.__traceback__, "", 0
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return (str(component.context.id) if component is not None else "", type(error).__name__, file, line)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
