"""`otelwp-agent validate`: report all problems of a configuration without starting anything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.options import config_options, load_document
from otelwp_agent.components import Catalog
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.manager import license_required
from otelwp_agent.licensing.offline import permitted
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.trial import try_to_build

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@config_options
def validate(config: Sequence[str], overrides: Sequence[str]) -> None:
    """Check a configuration, and list everything that is wrong with it.

    Each problem is one line: file, line and column, what is wrong, and what would be right. Every component is built,
    but nothing is opened or started. If there is a licence, what it does not enable is reported as a warning, because
    the agent starts without it. Exit status: 0 valid (possibly with warnings), 1 invalid, 2 wrong usage.
    """
    document = load_document(config, overrides)
    plan = make_plan(document, Catalog())
    entitlement = permitted(plan.service, time.time(), required=license_required())
    if entitlement.basis not in (Basis.CONFIGURED, Basis.EVALUATION):
        plan = make_plan(document, Catalog(), entitlement.tier)
        click.echo(f"tier {entitlement.tier.value}: {entitlement.reason}", err=True)
    try_to_build(plan, document)
    for warning in plan.warnings:
        click.echo(str(warning), err=True)
    click.echo(f"OK: {_count(len(plan.pipelines), 'pipeline')}, {_count(len(plan.components), 'component')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
