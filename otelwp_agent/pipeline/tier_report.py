"""Report what each tier would change in a configuration, for `otelwp-agent tiers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.config.document import show_path
from otelwp_agent.pipeline.reduction import ChangeKind, reduce_plan
from otelwp_agent.pipeline.tenant_plans import left_out
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.config.document import Document, Path, Place
    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.pipeline.reduction import PlanChange
    from otelwp_agent.pipeline.tenant_plans import LeftOut


@dataclass(frozen=True, slots=True)
class UsedPart:
    """A component or setting that a configuration uses, with the lowest tier that enables it."""

    tier: Tier
    name: str
    """Path, like `processors.batch`."""
    place: Place


@dataclass(frozen=True, slots=True)
class TierChange:
    """A difference between a configuration and what an agent with a lower tier runs."""

    change: PlanChange
    place: Place
    is_written: bool
    """Whether the configuration contains it. If not, a default differs in this tier, and nothing is refused."""


@dataclass(frozen=True, slots=True)
class TierReport:
    """The parts that a configuration uses, and the changes of each tier."""

    used: Sequence[UsedPart]
    """In the order of the document."""
    changes: Mapping[Tier, Sequence[TierChange]]
    tenants: Mapping[Tier, Sequence[tuple[LeftOut, Place]]]
    """Components and settings that a tenant does not get, by the tier of its plan; empty without a control store."""

    def enables(self, tier: Tier) -> bool:
        """Return whether a tier enables everything that the configuration contains."""
        return not any(change.is_written for change in self.changes[tier])

    @property
    def needed(self) -> Tier:
        """The lowest tier that enables everything."""
        return next(tier for tier in Tier if self.enables(tier))


def report_tiers(plan: Plan, document: Document) -> TierReport:
    """Return the report on the plan of a document; the tier that the document states does not matter."""
    changes = {tier: _changes(plan, document, tier) for tier in Tier}
    used = {
        (key[0].value, str(key[1])): UsedPart(one.factory.tier, f"{key[0].value}.{key[1]}", place)
        for key, one in plan.components.items()
        for place in [document.place((key[0].value, str(key[1])), key=True)]
    }
    settings: dict[Path, UsedPart] = {}
    for tier, above in zip([*Tier][:-1], [*Tier][1:], strict=True):
        for each in changes[tier]:
            if each.change.action == ChangeKind.LIMITED.value and each.is_written:
                path = each.change.path
                settings[path] = UsedPart(above, show_path(path), each.place)
    files = {name: number for number, name in enumerate(document.files)}

    def order(part: UsedPart) -> tuple[int, int, int]:
        return files.get(part.place.file, len(files)), part.place.line, part.place.column

    tenants = {
        tier: [(each, document.place(each.path, key=True)) for each in found] for tier, found in left_out(plan).items()
    }
    return TierReport(sorted([*used.values(), *settings.values()], key=order), changes, tenants)


def _changes(plan: Plan, document: Document, tier: Tier) -> list[TierChange]:
    return [
        TierChange(change, document.place(change.path, key=True), _is_written(document, change.path))
        for change in reduce_plan(plan, tier).changes
    ]


def _is_written(document: Document, path: Path) -> bool:
    node = document.root
    for part in path:
        child = node.get(part)
        if child is None:
            return False
        node = child
    return True
