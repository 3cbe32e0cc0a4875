"""Make the Markdown report of a benchmark, ready for the README."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from results import BASELINE, OURS, OURS_GZIP, PEER, PEER_UNSENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from results import Results, Sample


def markdown(results: Results) -> str:
    """Return the whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield " · ".join(f"{name}: {value}" for name, value in results.machine.items())
    yield ""
    yield from _load_table(results)
    yield from _baseline_table(results)
    yield from _rest_table(results)
    yield from _stalled_table(results)
    yield "| goal | measured | |"
    yield "|---|---:|---|"
    for goal in results.goals():
        yield f"| {goal.text} | {goal.figure} | {'—' if goal.met is None else 'met' if goal.met else '**missed**'} |"
    for note in results.notes:
        yield ""
        yield note


def _load_table(results: Results) -> Iterator[str]:
    cells = dict.fromkeys((sample.protocol, sample.spans) for sample in results.samples)
    if not cells:
        return
    titles = (
        "spans a request",
        "CPU a request",
        "spans a CPU-second",
        "peak memory",
        "bytes out a span",
        "errors",
        "sent = arrived",
        "CPU against Rotel's",
    )
    yield f"| | {' | '.join(titles)} |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|---:|"
    for protocol, spans in cells:
        for collector in (BASELINE, OURS, OURS_GZIP, PEER, PEER_UNSENT):
            samples = results.of(collector, protocol, spans)
            if samples:
                ours = collector in (OURS, OURS_GZIP)
                ratio = results.ratio(protocol, spans, collector) if ours else None
                yield _load_row(samples, f"**{ratio:.1f} x**" if ratio else "")
    yield ""


def _baseline_table(results: Results) -> Iterator[str]:
    """Yield a comparison of this checkout with the baseline: medians of the rounds' ratios of CPU per request."""
    cells = dict.fromkeys((each.protocol, each.spans) for each in results.samples if each.collector == BASELINE)
    if not cells:
        return
    yield "| CPU a request | spans a request | baseline | this checkout | ratio |"
    yield "|---|---:|---:|---:|---:|"
    for protocol, spans in cells:
        before = [each.cpu_us_per_request for each in results.of(BASELINE, protocol, spans)]
        after = [each.cpu_us_per_request for each in results.of(OURS, protocol, spans)]
        if before and after:
            ratio = median(new / old for old, new in zip(before, after, strict=False))
            yield f"| {protocol} | {spans} | {median(before):.1f} µs | {median(after):.1f} µs | **{ratio:.3f}** |"
    yield ""


def _load_row(samples: list[Sample], ratio: str) -> str:
    first = samples[0]
    sent = sum(sample.sent_spans for sample in samples)
    arrived = sum(sample.arrived_spans for sample in samples)
    cells = [
        f"{first.collector}, {'HTTP' if first.protocol == 'http' else 'gRPC'}",
        str(first.spans),
        f"{median(sample.cpu_us_per_request for sample in samples):,.1f} µs",
        f"{median(sample.spans_per_cpu_second for sample in samples) / 1e6:.3f} M",
        f"{max(sample.peak_mb for sample in samples):.1f} MB",
        f"{sum(sample.sent_bytes for sample in samples) / max(arrived, 1):.0f}",
        str(sum(sample.errors for sample in samples)),
        _sent_and_arrived(first.collector, sent, arrived),
        ratio,
    ]
    return f"| {' | '.join(cells)} |"


def _sent_and_arrived(collector: str, sent: int, arrived: int) -> str:
    if collector == PEER_UNSENT:
        return "sends nothing"
    return f"yes, {sent:,}" if sent == arrived else f"**no**, {sent:,} ≠ {arrived:,}"


def _rest_table(results: Results) -> Iterator[str]:
    rows = dict.fromkeys((idle.collector, idle.with_grpc) for idle in results.idle)
    if not rows:
        return
    yield "| at rest | from exec to listening | memory after 3 s |"
    yield "|---|---:|---:|"
    for collector, with_grpc in rows:
        samples = [each for each in results.idle if (each.collector, each.with_grpc) == (collector, with_grpc)]
        seconds = median(each.listening_seconds for each in samples)
        memory = median(each.rss_mb for each in samples)
        listens = "HTTP and gRPC" if with_grpc else "HTTP only"
        yield f"| {collector}, {listens} | {seconds:.2f} s | {memory:.1f} MB |"
    yield ""


def _stalled_table(results: Results) -> Iterator[str]:
    if not results.stalled:
        return
    yield "| backend never answers | for | peak memory | answers to the client |"
    yield "|---|---:|---:|---|"
    for each in results.stalled:
        answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(each.statuses.items()) if count)
        protocol = "HTTP" if each.protocol == "http" else "gRPC"
        yield f"| {each.collector}, {protocol} | {each.seconds:.0f} s | {each.peak_mb:.1f} MB | {answers} |"
    yield ""
