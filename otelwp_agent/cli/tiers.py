"""`otelwp-agent tiers`: explain which tier a configuration needs, and change it for another tier."""

from __future__ import annotations

import difflib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otelwp_agent.cli.control_options import show_table
from otelwp_agent.cli.options import config_options, load_document
from otelwp_agent.components import Catalog
from otelwp_agent.config.load import load
from otelwp_agent.errors import AgentError
from otelwp_agent.licensing.manager import license_required
from otelwp_agent.licensing.offline import permitted
from otelwp_agent.pipeline.plan import make_plan
from otelwp_agent.pipeline.tier_report import report_tiers
from otelwp_agent.storage import files
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.config.document import Document, Place
    from otelwp_agent.licensing.entitlement import Entitlement
    from otelwp_agent.pipeline.tier_report import TierChange, TierReport


@click.group()
def tiers() -> None:
    """Explain which tier a configuration needs, and change a configuration for another tier."""


@tiers.command()
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def explain(*, config: Sequence[str], overrides: Sequence[str], as_json: bool) -> None:
    """List what a configuration uses, by line, with the tier that enables it, and what each tier would change.

    An agent whose licence permits less than the configuration uses runs with these changes. A configuration that states
    a lower tier itself (`service.tier`) is refused instead.

    With a control store, the list also has what is left out for tenants, by the tier of their plans.
    """
    document = load_document(config, overrides)
    stated = _take_tier(document)
    plan = make_plan(document, Catalog())
    service = plan.service.model_copy(update={"tier": stated})
    entitlement = permitted(service, time.time(), required=license_required())
    report = report_tiers(plan, document)
    if as_json:
        click.echo(json.dumps(_as_json(report, entitlement), indent=2, ensure_ascii=False))
    else:
        _print(report, entitlement)


@tiers.command()
@click.option("--config", "-c", "config", required=True, metavar="FILE", help="The file to change.")
@click.option("--to", "target", required=True, type=click.Choice([tier.value for tier in Tier]), help="The new tier.")
@click.option("--output", metavar="FILE", help="Write the changed configuration to FILE; `-` is stdout.")
@click.option("--in-place", is_flag=True, help="Write the changed configuration to the file itself.")
def migrate(*, config: str, target: str, output: str | None, in_place: bool) -> None:
    """Change a configuration for another tier, with its comments, and show the differences.

    `service.tier` is set, unless there is a licence. For a lower tier, pipelines lose what it does not enable; the
    components stay configured. From free to a higher tier, pipelines get the processor `batch`. Without `--output` and
    `--in-place`, only the differences are printed. The result is checked before it is written.
    """
    if output is not None and in_place:
        raise click.UsageError("give --output or --in-place, not both")
    from otelwp_agent.cli.tier_migration import migrated  # noqa: PLC0415 - imports ruamel.yaml

    path = Path(config.removeprefix("file:"))
    try:
        before = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    document = load([str(path)])
    _take_tier(document)
    plan = make_plan(document, Catalog())
    after = migrated(before, plan, document, Tier(target))
    make_plan(load([f"yaml:{after}"]), Catalog())
    differences = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (tier {target})"
    )
    click.echo(
        "".join(differences) or f"{path} is a configuration for tier {target} already\n", err=output == "-", nl=False
    )
    if output == "-":
        click.echo(after, nl=False)
    elif output is not None or in_place:
        _write(path if in_place else Path(str(output)), after, mode=path.stat().st_mode & 0o777)


def _write(path: Path, text: str, *, mode: int) -> None:
    try:
        files.replace_file(path, text.encode())
        os.chmod(path, mode)  # noqa: PTH101 - beside `replace_file`
    except OSError as error:
        raise AgentError(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}", err=True)


def _take_tier(document: Document) -> str | None:
    """Remove the tier that a document states, so that nothing is refused for it; return it if it is valid."""
    service = document.root.get("service")
    node = None if service is None else service.get("tier")
    if service is None or node is None or node.value not in [tier.value for tier in Tier]:
        return None
    assert isinstance(service.value, dict)  # noqa: S101 - it has a key
    del service.value["tier"]
    return str(node.value)


def _as_json(report: TierReport, entitlement: Entitlement) -> dict[str, Any]:
    return {
        "tier": entitlement.tier.value,
        "basis": entitlement.basis.value,
        "reason": entitlement.reason,
        "needed": report.needed.value,
        "used": [{"tier": part.tier.value, "path": part.name, **_place(part.place)} for part in report.used],
        "tiers": {
            tier.value: {
                "enables_all": report.enables(tier),
                "changes": [
                    {
                        "component": each.change.component,
                        "action": each.change.action,
                        "detail": each.change.detail,
                        "written": each.is_written,
                        **_place(each.place),
                    }
                    for each in changes
                ],
            }
            for tier, changes in report.changes.items()
        },
        "tenants": {
            tier.value: [{"component": each.component, "effect": each.effect, **_place(place)} for each, place in found]
            for tier, found in report.tenants.items()
        },
    }


def _place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}


def _print(report: TierReport, entitlement: Entitlement) -> None:
    click.echo(f"This agent has tier {entitlement.tier.value}: {entitlement.reason}.")
    click.echo(f"This configuration needs tier {report.needed.value}.\n\nIt uses:\n")
    show_table(("TIER", "LINE", "WHAT"), [(part.tier.value, _at(part.place), part.name) for part in report.used], "")
    for tier, changes in report.changes.items():
        click.echo(f"\nTier {tier.value} " + ("changes:\n" if changes else "changes nothing."))
        for each in changes:
            click.echo(f"  {_at(each.place)}: {_words(each)}")
    for tier, found in report.tenants.items():
        what = "this differs:\n" if found else "nothing is left out."
        click.echo(f"\nFor a tenant whose plan has tier {tier.value}, {what}")
        for left, place in found:
            click.echo(f"  {_at(place)}: {left.component}: {left.effect}")


def _words(each: TierChange) -> str:
    return f"{each.change}" + ("" if each.is_written else " (the default of this tier)")


def _at(place: Place) -> str:
    return f"{place.file}:{place.line}" if place.line else place.file
