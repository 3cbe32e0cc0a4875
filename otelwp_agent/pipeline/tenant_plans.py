"""Leave out the stages of a pipeline, for the batches of a tenant, that the tier of the tenant's plan does not enable.

The rules are those of `pipeline.reduction`: what an agent of a lower tier runs is what a tenant of that tier gets. Each
component runs once, for all tenants; a `TierSwitch` before it forwards the batches of some tenants to the next stage
instead. Without a control store there are no plans, and no switches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.component import Kind, NeedsPlan
from otelwp_agent.config.references import Capability
from otelwp_agent.errors import ConsumeError
from otelwp_agent.pipeline.reduction import reduce_plan
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from otelwp_agent.component import Consumer
    from otelwp_agent.config.document import Path
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.tenant_tiers import TenantTiers
    from otelwp_agent.pipeline.plan_types import ComponentPlan, PipelinePlan, Plan

Variants = dict[Tier, "PipelinePlan"]
"""A pipeline as the tenants of each tier get it."""


def has_tenant_plans(plan: Plan) -> bool:
    """Return whether a configuration has tenants with plans: a control store."""
    stores = (plan.components[Kind.EXTENSION, identifier].factory for identifier in plan.extensions)
    return any(Capability.CONTROL_STORE in factory.capabilities for factory in stores)


def tenant_variants(plan: Plan) -> Mapping[str, Variants]:
    """Return the variants of each pipeline; an empty mapping if there are no plans of tenants."""
    if not has_tenant_plans(plan):
        return {}
    reduced = {tier: reduce_plan(plan, tier).plan.pipelines for tier in Tier}
    return {name: {tier: pipelines[name] for tier, pipelines in reduced.items()} for name in plan.pipelines}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A component or setting that tenants of a tier do not get."""

    path: Path
    """Path in the document."""
    effect: str
    """The consequence, such as `bypassed`."""

    @property
    def component(self) -> str:
        """The component, like `processors/batch`."""
        return "/".join(map(str, self.path[:2]))


def left_out(plan: Plan) -> Mapping[Tier, Sequence[LeftOut]]:
    """Return what tenants of each tier do not get; an empty mapping if there are no plans of tenants."""
    variants = tenant_variants(plan).values()
    return {tier: [*_left_out(plan, [each[tier] for each in variants], tier)] for tier in Tier} if variants else {}


def _left_out(plan: Plan, pipelines: Sequence[PipelinePlan], tier: Tier) -> Iterator[LeftOut]:
    found: dict[LeftOut, None] = {}
    for reduced in pipelines:
        whole = plan.pipelines[reduced.id]
        for identifier in whole.processors:
            if identifier not in reduced.processors:
                found[LeftOut((Kind.PROCESSOR.value, str(identifier)), "bypassed")] = None
        for identifier in whole.exporters:
            if identifier not in reduced.exporters:
                found[LeftOut((Kind.EXPORTER.value, str(identifier)), "gets nothing")] = None
    for (kind, _), planned in plan.components.items():
        if kind is Kind.RECEIVER:
            found |= dict.fromkeys(_refused(planned, tier))
    yield from found


def _refused(planned: ComponentPlan, tier: Tier) -> Iterator[LeftOut]:
    """Yield the requests to a receiver that are refused from tenants of a tier."""
    path = (planned.kind.value, str(planned.id))
    if not tier.enables(planned.factory.tier):
        yield LeftOut(path, "requests refused")
        return
    for name, field in type(planned.config).model_fields.items():
        for needs in field.metadata:
            if isinstance(needs, NeedsPlan) and not tier.enables(needs.tier) and getattr(planned.config, name):
                yield LeftOut((*path, field.alias or name), f"{needs.feature} refused")


class TierSwitch:
    """Forwards a batch to the consumer for the tier of its tenant's plan."""

    def __init__(
        self,
        tiers: TenantTiers,
        consumers: Mapping[Tier, Consumer],
        pipeline: str,
        bypassed: Mapping[Tier, Sequence[str]],
    ) -> None:
        """Forward to `consumers`, one for each tier; `bypassed` names the components that a tier leaves out."""
        self._tiers = tiers
        self._consumers = consumers
        self._all = consumers[Tier.ENTERPRISE]
        self._pipeline = pipeline
        self._bypassed = bypassed

    def consume(self, batch: Batch) -> None:
        """Forward the batch, and count it for the components that it bypasses."""
        tenant = batch.origin.tenant
        if not tenant:
            self._all.consume(batch)
            return
        tier = self._tiers.of(tenant)
        self._consumers[tier].consume(batch)
        for component in self._bypassed[tier]:
            self._tiers.bypassed(tenant, self._pipeline, component, batch.items)

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        tenant = batch.origin.tenant
        return (self._consumers[self._tiers.of(tenant)] if tenant else self._all).refusal(batch)


def admit_any(admits: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return a function that raises an error of `admits` only if each of them raises one."""

    def admit() -> None:
        refusal: ConsumeError | None = None
        for each in admits:
            try:
                each()
            except ConsumeError as error:
                refusal = refusal or error
            else:
                return
        if refusal is not None:
            raise refusal

    return admit
