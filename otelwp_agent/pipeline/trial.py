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
    from collections.abc import Mapping

    from otelwp_agent.component import Component, ComponentId
    from otelwp_agent.config.document import Document
    from otelwp_agent.pipeline.plan_types import ComponentPlan, Plan


def try_to_build(plan: Plan, document: Document) -> None:
    """Build every component of `plan`, used or not; raise `ConfigError` with those that cannot be built.

    Opens nothing: that is what building a component promises.
    """
    problems: list[Problem] = []
    extensions: dict[ComponentId, Component] = {}
    first = [plan.components[Kind.EXTENSION, identifier] for identifier in plan.extensions]
    others = [planned for planned in plan.components.values() if planned not in first]
    for planned in [*first, *others, *plan.unused.values()]:
        if not extensions.keys() >= {*planned.references}:
            continue  # an extension that it needs cannot be built, which is reported
        try:
            component = build_component(planned, _context(planned, extensions))
            if planned in first:
                extensions[planned.id] = component
        except StartError as error:
            place = document.place((planned.kind.value, str(planned.id)), key=True)
            problems.append(Problem(str(error), "", place.file, place.line, place.column))
    if problems:
        raise ConfigError(problems)


def _context(planned: ComponentPlan, extensions: Mapping[ComponentId, Component]) -> Context:
    return Context(
        id=planned.id,
        kind=planned.kind,
        registry=Registry(),
        log=logging.get(f"{planned.kind.value}/{planned.id}"),
        clock=time.monotonic,
        host=NoHost("starting"),
        pipeline="validate" if planned.kind is Kind.PROCESSOR else "",
        extensions=extensions,
    )
