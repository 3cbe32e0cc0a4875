"""`otelwp-agent sampling`: show why traces are kept or dropped, and what other rules would have kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otelwp_agent.cli.asking import NoAnswerError, ask
from otelwp_agent.cli.key_options import journal_keys, key_option
from otelwp_agent.cli.options import agent_options, config_options, load_plan
from otelwp_agent.cli.sampling_tables import explained, replayed
from otelwp_agent.component import Kind
from otelwp_agent.errors import AgentError
from otelwp_agent.sampling.adaptive.policy import GIB, MONTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.pipeline.plan_types import Plan
    from otelwp_agent.replay.recordings import Recorded, Recording
    from otelwp_agent.replay.replay import Replayed
    from otelwp_agent.sampling.adaptive.counts import Counts

TOP = 20
_top_option = click.option(
    "--top",
    type=click.IntRange(1, 1000),
    default=TOP,
    show_default=True,
    metavar="KEYS",
    help="Number of keys to show, those with the most traffic.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_pipeline_option = click.option("--pipeline", default="", metavar="ID", help="Only this pipeline.")
_processor_option = click.option("--processor", default="", metavar="ID", help="Only this processor.")


@click.group()
def sampling() -> None:
    """Explain adaptive sampling, and try other rules on recorded traces."""


def agent_socket(config: Sequence[str], overrides: Sequence[str], socket: str | None) -> str:
    """Return the control socket that the options name; raise `UsageError`, `ConfigError` or `AgentError` if none."""
    if not (config or socket):
        raise click.UsageError("give the agent's --config FILE or --socket PATH")
    if socket is None:
        socket = load_plan(config, overrides).service.control_path
    if socket is None:
        raise AgentError("this configuration has no control socket: set `service.control_socket`")
    return socket


@sampling.command()
@agent_options
@_pipeline_option
@_processor_option
@_top_option
@_json_option
def explain(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    socket: str | None,
    pipeline: str,
    processor: str,
    top: int,
    as_json: bool,
) -> None:
    """Show the traffic of each key, how much of it is kept, and why.

    Traces per second, share of errors and percentiles of durations are estimates over all traces, kept or not, of the
    last five to ten minutes; the 95 % confidence interval is in parentheses. "chance" is the probability with which a
    trace is kept if no rule keeps it.
    """
    try:
        answer = ask(agent_socket(config, overrides, socket), "GET", f"/sampling?top={top}")
    except NoAnswerError as error:
        raise AgentError(f"{error}. Only a running agent can explain its sampling: start it first") from error
    samplers = select_samplers(answer["samplers"], pipeline, processor)
    if as_json:
        click.echo(json.dumps({"samplers": samplers}, indent=2, ensure_ascii=False))
        return
    for number, sampler in enumerate(samplers):
        if number:
            click.echo("")
        for line in explained(sampler):
            click.echo(line)


def select_samplers(samplers: Sequence[dict[str, Any]], pipeline: str, processor: str) -> list[dict[str, Any]]:
    """Return the samplers that match `pipeline` and `processor`; raise `AgentError` that lists all if none does."""
    if not samplers:
        raise AgentError("the agent has no `adaptive_sampling` in its pipelines")
    found = [
        sampler
        for sampler in samplers
        if pipeline in {"", sampler["pipeline"]} and processor in {"", sampler["processor"]}
    ]
    if not found:
        names = ", ".join(f"{sampler['processor']} in {sampler['pipeline']}" for sampler in samplers)
        raise AgentError(f"no adaptive sampling matches --pipeline and --processor: there is {names}")
    return found


@sampling.command()
@config_options
@click.option(
    "--journal",
    metavar="DIRECTORY",
    help="Replay the traces in a journal, delivered or not.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Replay a file written by the exporter `file`. Repeatable, oldest first.",
)
@key_option
@_pipeline_option
@_processor_option
@click.option(
    "--price-per-gib",
    type=click.FloatRange(0, min_open=True),
    metavar="PRICE",
    help="Price of a GiB; that of the `target` if left out.",
)
@_top_option
@_json_option
def replay(  # noqa: PLR0913 - one argument for each option
    *,
    config: Sequence[str],
    overrides: Sequence[str],
    journal: str | None,
    files: Sequence[str],
    key_files: Sequence[str],
    pipeline: str,
    processor: str,
    price_per_gib: float | None,
    top: int,
    as_json: bool,
) -> None:
    """Show what the rules of a configuration would have kept of recorded traces, and what that would have cost.

    The pipeline of the configuration runs up to its `adaptive_sampling`, on a simulated clock: an hour takes seconds.
    Nothing is sent, and nothing is written.
    """
    if bool(journal) == bool(files):
        raise click.UsageError("give what to replay: either --file FILE or --journal DIRECTORY")
    plan = load_plan(config, overrides)
    from otelwp_agent.replay.recordings import Recording  # noqa: PLC0415 - not needed for `explain`
    from otelwp_agent.replay.replay import choose  # noqa: PLC0415
    from otelwp_agent.replay.replay import replay as run  # noqa: PLC0415

    chosen, identifier = choose(plan, pipeline, processor)
    recording = Recording()
    requests = _requests(recording, plan, chosen.id, journal, files, key_files)
    done = run(plan, chosen, identifier, requests, recording)
    if not done.requests:
        raise AgentError(f"there are no traces in {journal or ', '.join(files)}{_skipped(recording)}")
    target = getattr(plan.components[Kind.PROCESSOR, identifier].config, "target", None)
    price = price_per_gib or (target.price_per_gib if target is not None else None)
    if as_json:
        click.echo(json.dumps(_to_json(done, recording, price), indent=2, ensure_ascii=False))
        return
    length = f" over {_length(done.seconds)}"
    click.echo(f"{done.requests:,} requests with {done.spans:,} spans{length}, through {identifier} in {chosen.id}")
    if done.left_out:
        click.echo(f"left out of the pipeline: {', '.join(done.left_out)}")
    if done.refused:
        click.echo(f"requests that the pipeline would have refused: {done.refused:,}")
    if recording.skipped:
        click.echo(f"not replayed{_skipped(recording)}")
    click.echo("")
    for line in replayed(done, top, price):
        click.echo(line)


def _requests(  # noqa: PLR0913, PLR0917 - options of `replay`
    recording: Recording,
    plan: Plan,
    pipeline: str,
    journal: str | None,
    files: Sequence[str],
    key_files: Sequence[str],
) -> Iterator[Recorded]:
    if journal is not None:
        keys = journal_keys(key_files, plan.service)
        return recording.from_journal(Path(journal), frozenset(plan.pipelines), pipeline, keys)
    return recording.from_files([Path(name) for name in files])


def _skipped(recording: Recording) -> str:
    skipped = recording.skipped
    return f": {', '.join(f'{why} {count:,}' for why, count in sorted(skipped.items()))}" if skipped else ""


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s" if minutes else f"{seconds:.3g}s"


def _to_json(done: Replayed, recording: Recording, price: float | None) -> dict[str, Any]:
    def counts_json(kept: Counts, dropped: Counts) -> dict[str, Any]:
        cost = {} if price is None else {"cost": kept.bytes / GIB * price}
        return {"kept": asdict(kept), "dropped": asdict(dropped), **cost}

    total = counts_json(*done.totals())
    if price is not None and done.seconds:
        total["cost_per_month"] = total["cost"] / done.seconds * MONTH
    return {
        "requests": done.requests,
        "spans": done.spans,
        "seconds": done.seconds,
        "refused": done.refused,
        "skipped": recording.skipped,
        "left_out": list(done.left_out),
        "per": list(done.per),
        "total": total,
        "reasons": [
            {"decision": "kept" if keep else "dropped", "reason": reason, **asdict(counts)}
            for (keep, reason), counts in sorted(done.reasons.items())
        ],
        "keys": [{"key": list(key), **counts_json(*done.of(key))} for key in sorted({*done.kept, *done.dropped})],
    }
