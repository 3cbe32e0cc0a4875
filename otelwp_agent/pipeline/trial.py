"""Build every component of a plan once and throw it away, so that `validate` finds settings that cannot be built."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.component import Context, Kind, NoHost
from otelwp_agent.errors import ConfigError, Problem, StartError
from otelwp_agent.pipeline.building import build_component
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry

if TYPE_CHECKING:
    from otelwp_agent.config.document import Document
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Plan


def try_to_build(plan: Plan, document: Document) -> None:
    """Build every component of `plan`, used or not; raise `ConfigError` with those that cannot be built.

    Opens nothing: that is what building a component promises.
    """
    problems: list[Problem] = []
    for planned in [*plan.components.values(), *plan.unused.values()]:
        try:
            build_component(planned, _context(planned))
        except StartError as error:
            place = document.place((planned.kind.value, str(planned.id)), key=True)
            problems.append(Problem(str(error), "", place.file, place.line, place.column))
    if problems:
        raise ConfigError(problems)


def _context(planned: ComponentPlan) -> Context:
    return Context(
        id=planned.id,
        kind=planned.kind,
        registry=Registry(),
        log=logging.get(f"{planned.kind.value}/{planned.id}"),
        clock=time.monotonic,
        host=NoHost("starting"),
        pipeline="validate" if planned.kind is Kind.PROCESSOR else "",
    )
