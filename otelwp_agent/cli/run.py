"""`otelwp-agent run`: run the agent until a signal stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otelwp_agent.cli.options import config_options, load_plan
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.service.service import Service


@click.command()
@config_options
def run(config: Sequence[str], overrides: Sequence[str]) -> None:
    """Run the agent.

    SIGTERM or Ctrl-C delivers what is buffered and stops; a second one stops at once. SIGHUP reloads the configuration.
    """
    import uvloop  # noqa: PLC0415 - only for this command

    from otelwp_agent.service.service import Service  # noqa: PLC0415 - only for this command

    def load() -> Plan:
        plan = load_plan(config, overrides)
        for warning in plan.warnings:
            click.echo(str(warning), err=True)
        return plan

    async def main() -> None:
        service = Service(load)
        spawn(_print_addresses(service), name="print addresses")
        await service.run()

    uvloop.run(main())


async def _print_addresses(service: Service) -> None:
    """Print the addresses once the agent listens; only with the log encoding `console`, which people read."""
    await service.started.wait()
    telemetry = service.graph.plan.service.telemetry
    if telemetry.logs.encoding != "console":
        return
    lines = [
        f"  {transport:<8} {address}  ({identifier})"
        for identifier, receiver in service.graph.receivers.items()
        for transport, address in receiver.endpoints().items()
    ]
    if telemetry.metrics.address:
        lines.append(f"  {'metrics':<8} http://{telemetry.metrics.address}/metrics")
    lines += [
        f"  {name:<8} {address}  ({identifier})"
        for identifier, extension in service.graph.extensions.items()
        for name, address in extension.endpoints().items()
    ]
    text = "\n".join(lines)
    click.echo(f"\notelwp-agent is ready. It listens here:\n{text}\n\nTry it: otelwp-agent generate\n", err=True)
