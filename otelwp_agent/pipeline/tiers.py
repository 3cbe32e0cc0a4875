"""Find components and settings that a tier does not enable.

The tier that a configuration states (`service.tier`) is checked unless it has a licence (`service.license`): then the
licence decides, and the agent runs what it enables (`pipeline.reduction`). With neither, every tier is enabled.

This module names no component. The `FACTORY` of each component gives its tier, and whether it counts towards the
limit of exporters; marks on the fields of its `Config` give the settings that need a higher tier (`NeedsTier`) and
those that are a kept percentage (`KeptPercentage`). The journal, dead letters, health and self-telemetry are in every
tier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.component import KeptPercentage, Kind, NeedsTier, Tier
from otelwp_agent.config.explain import listing, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from otelwp_agent.component import Factory
    from otelwp_agent.config.document import Document, Node, Path
    from otelwp_agent.errors import Problem
    from otelwp_agent.pipeline.plan_types import Key


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a tier; `None` means no limit."""

    exporters: int | None = None
    """Largest number of exporters, of those that count."""
    kept_percentage: float | None = None
    """Highest percentage that a sampler may keep."""


LIMITS: dict[Tier, Limits] = {
    Tier.FREE: Limits(exporters=1, kept_percentage=10.0),
    Tier.PRO: Limits(),
    Tier.ENTERPRISE: Limits(),
}


@dataclass(frozen=True, slots=True)
class Declared:
    """A component in the document, whether its settings are valid or not."""

    factory: Factory
    node: Node
    path: Path


def check_tiers(
    declared: Mapping[Key, Declared], used: Mapping[Key, Sequence[str]], tier: Tier, source: str
) -> list[Problem]:
    """Return a problem for everything that needs a higher tier than `tier`, which `source` states, for messages.

    `declared` is in the order of the document; `used` maps each used component to the ids of its pipelines (none for an
    extension). Components that are declared but not used do not run and are not checked.
    """
    gate = _Gate(tier, source)
    running = {key: one for key, one in declared.items() if key in used}
    problems: list[Problem] = []
    for key, one in running.items():
        problems += gate.component(key, one, used[key])
        problems += gate.settings(one)
    return [*problems, *gate.exporters(running)]


def stated_tier(document: Document) -> Tier | None:
    """Return the tier to check a document against; `None` if it states none, or has a licence, which decides.

    It is read from the document, not from a `ServiceConfig`, so that tiers are checked even if the section `service`
    has other errors. An invalid tier has been reported before.
    """
    service = document.root.get("service")
    if service is None or ((licence := service.get("license")) is not None and licence.value is not None):
        return None
    node = service.get("tier")
    return None if node is None else next((tier for tier in Tier if tier.value == node.value), None)


class _Gate:
    """Checks components against one tier."""

    def __init__(self, tier: Tier, source: str) -> None:
        self._tier = tier
        self._source = source
        self._limits = LIMITS[tier]

    def component(self, key: Key, one: Declared, pipelines: Sequence[str]) -> Iterator[Problem]:
        """Refuse a component that needs a higher tier."""
        needed = one.factory.tier
        if self._tier.enables(needed):
            return
        kind, _ = key
        if kind is Kind.EXTENSION:
            where = "`service.extensions`"
        else:
            where = f"pipeline{'' if len(pipelines) == 1 else 's'} {listing(pipelines, 'and')}"
        message = f"this {kind.label} needs {self._instead_of(needed)}: leave it out of {where}; "
        message += _tiers_that(lambda tier: tier.enables(needed), "enables it", "enable it")
        yield one.node.problem(message, one.path, at_key=True)

    def settings(self, one: Declared) -> Iterator[Problem]:
        """Refuse settings that need a higher tier, and percentages above the tier's ceiling."""
        for field, node, path in settings(one.factory.config, one.node, one.path):
            for mark in field.metadata:
                if isinstance(mark, NeedsTier):
                    yield from self._setting(field, node, path, mark)
                elif isinstance(mark, KeptPercentage):
                    yield from self._percentage(node, path)

    def _setting(self, field: FieldInfo, node: Node, path: Path, mark: NeedsTier) -> Iterator[Problem]:
        needed = mark.tier
        is_below = node.value is None or node.data() == mark.value_below(field.default)  # no value means the default
        if is_below or self._tier.enables(needed):
            return
        message = f"this needs {self._instead_of(needed)}: leave it out; "
        message += _tiers_that(lambda tier: tier.enables(needed), "enables it", "enable it")
        yield node.problem(message, path, at_key=True)

    def _percentage(self, node: Node, path: Path) -> Iterator[Problem]:
        ceiling, kept = self._limits.kept_percentage, _number(node)
        if ceiling is None or kept is None or kept <= ceiling:
            return
        shown = f"{kept:.15g} %" if node.written is None else f"the value of `{node.written}`"
        others = _tiers_that(lambda tier: LIMITS[tier].kept_percentage is None, "has no ceiling", "have no ceiling")
        message = f"{shown} is above {ceiling:g} %, the most that tier `{self._tier.value}` keeps: "
        message += f"give {ceiling:g} or less; {others}"
        yield node.problem(message, path)

    def exporters(self, running: Mapping[Key, Declared]) -> Iterator[Problem]:
        """Refuse every exporter above the tier's limit. Exporters that the tier does not enable are not counted."""
        most = self._limits.exporters
        if most is None:
            return
        counted = [
            (str(identifier), one)
            for (kind, identifier), one in running.items()
            if kind is Kind.EXPORTER and one.factory.counted and self._tier.enables(one.factory.tier)
        ]
        first = [name for name, _ in counted[:most]]
        others = _tiers_that(lambda tier: LIMITS[tier].exporters is None, "allows any number", "allow any number")
        for name, one in counted[most:]:
            message = (
                f"tier `{self._tier.value}` allows {most} exporter{'' if most == 1 else 's'}, but there "
                f"{'is' if most == 1 else 'are'} {listing(first, 'and')} in addition to `{name}`: "
                f"leave {listing([*first, name])} out of the pipelines; {others}"
            )
            yield one.node.problem(message, one.path, at_key=True)

    def _instead_of(self, needed: Tier) -> str:
        return f"tier `{needed.value}`, but {self._source} is `{self._tier.value}`"


def _tiers_that(has: Callable[[Tier], bool], one: str, several: str) -> str:
    """Return a phrase that names the tiers for which `has` is true, with the verb `one` or `several`."""
    tiers = [tier.value for tier in Tier if has(tier)]
    return f"tier {listing(tiers)} {one}" if len(tiers) == 1 else f"tiers {listing(tiers, 'and')} {several}"


def _number(node: Node) -> float | None:
    """Return the number in a node, also if it is in quotes; `None` if it is none, which the model reports."""
    if not isinstance(node.value, int | float | str):
        return None
    try:
        number = float(node.value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
