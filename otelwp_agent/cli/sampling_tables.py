"""Tables that `otelwp-agent sampling` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelwp_agent.config.types import format_duration
from otelwp_agent.sampling.adaptive.counts import Counts
from otelwp_agent.sampling.adaptive.policy import GIB, MONTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelwp_agent.replay.replay import Replayed
    from otelwp_agent.sampling.adaptive.trace import Key

_LONGEST_CELL = 48
_PERCENTILES = ("50", "95", "99")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def table(rows: Sequence[Sequence[str]], left: int, *, last_is_text: bool = False) -> Iterator[str]:
    """Yield the lines of a table: the first `left` columns are left-aligned, the others right-aligned.

    With `last_is_text`, the last column is not aligned.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    end = len(widths) - 1
    for row in rows:
        cells = [
            cell if at == end and last_is_text else cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def explained(sampler: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that explain one sampler, from its JSON description."""
    budget, own = sampler["budget"], sampler["key_budget"]
    yield f"{sampler['processor']} in {sampler['pipeline']}" + (
        "" if sampler.get("mode") != "dry_run" else ": a dry run, which drops nothing"
    )
    if budget is None:
        yield "  no target: every trace is kept unless a rule drops it"
    else:
        unit = budget["unit"]
        spent = sampler["spent_last_minute"] / 60
        yield f"  target {_rate(budget['rate'], unit)}; in the last minute {_rate(spent, unit)} were kept"
    if own is not None:
        yield f"  no key has more than {_rate(own['rate'], own['unit'])}"
    if sampler["factor"] < 1:
        yield f"  more traffic than planned: all chances are multiplied by {sampler['factor']:.2g}"
    full = [f"{reason} {over}" for reason, over in sampler["over_ceiling"].items() if over]
    if full:
        yield f"  traces sampled by chance because the ceiling of their rule was reached: {', '.join(full)}"
    if sampler["guarded"]:
        yield f"  traces dropped because a minute's budget was spent: {sampler['guarded']}"
    yield ""
    keys = sampler["keys"]
    if not keys:
        yield "no traces received yet"
        return
    head = [*sampler["per"], "traces/s", "kept", "chance", "errors", *(f"p{each}" for each in _PERCENTILES), "why"]
    rows = [head, *(_explained_key(key, len(sampler["per"])) for key in keys)]
    yield from table(rows, len(sampler["per"]), last_is_text=True)
    if sampler["keys_known"] > len(keys):
        yield f"and {sampler['keys_known'] - len(keys)} more keys (--top)"


def _explained_key(key: dict[str, Any], parts: int) -> list[str]:
    low_high = key["rate"]
    share = key["kept_share"]
    return [
        *_key_cells(tuple(key["key"]), parts),
        _with_interval(low_high, _number),
        "-" if share is None else _percent(min(share, 1.0)),
        _number(key["probability"]),
        _with_interval(key["error_ratio"], _percent),
        *(_with_interval(key["percentiles"][each], _duration) for each in _PERCENTILES),
        key["why"],
    ]


def replayed(what: Replayed, top: int, price: float | None) -> Iterator[str]:
    """Yield the lines that show the result of a replay, with its `top` keys; `price` is that of a GiB, if known."""
    kept, dropped = what.totals()
    parts = len(what.per)
    # Cost per month of one kept byte at the rate of the recording.
    each = price / GIB / what.seconds * MONTH if price is not None and what.seconds > 0 else None
    head = [
        *what.per,
        "traces",
        "kept",
        "",
        "spans",
        "kept",
        "",
        "bytes",
        "kept",
        *(["cost/month"] if each is not None else []),
    ]
    order = sorted({*what.kept, *what.dropped}, key=lambda key: (-sum_of(what, key).spans, key))
    rows = [head]
    rows += [_replayed_row(_key_cells(key, parts), *what.of(key), each) for key in order[:top]]
    if len(order) > top:
        rest = [what.of(key) for key in order[top:]]
        cells = _key_cells((f"({len(rest)} more keys)",), parts)
        dropped_rest = sum([counts for _, counts in rest], Counts())
        rows.append(_replayed_row(cells, sum([counts for counts, _ in rest], Counts()), dropped_rest, each))
    rows.append(_replayed_row(_key_cells(("total",), parts), kept, dropped, each))
    yield from table(rows, parts)
    yield ""
    for keep, word in ((True, "kept"), (False, "dropped")):
        why = sorted(
            ((reason, counts) for (is_kept, reason), counts in what.reasons.items() if is_kept is keep),
            key=lambda entry: -entry[1].spans,
        )
        if why:
            listed = ", ".join(f"{reason} {counts.traces:,}" for reason, counts in why)
            yield f"traces {word} because of: {listed}"
    if what.seconds > 0:
        spans, traces = kept.spans / what.seconds, kept.traces / what.seconds
        yield f"kept per second: {_number(spans)} spans, {_number(traces)} traces"
        month = kept.bytes / what.seconds * MONTH
        cost = f", which costs {month / GIB * price:,.2f}" if price is not None else ""
        yield f"kept per month, at this rate: {_size(month)}{cost}"


def sum_of(what: Replayed, key: Key) -> Counts:
    """Return the counts of a key, kept and dropped together."""
    kept, dropped = what.of(key)
    return kept + dropped


def _replayed_row(cells: list[str], kept: Counts, dropped: Counts, each: float | None) -> list[str]:
    every = kept + dropped
    return [
        *cells,
        f"{every.traces:,}",
        f"{kept.traces:,}",
        _percent(kept.traces / every.traces) if every.traces else "-",
        f"{every.spans:,}",
        f"{kept.spans:,}",
        _percent(kept.spans / every.spans) if every.spans else "-",
        _size(every.bytes),
        _size(kept.bytes),
        *([f"{kept.bytes * each:,.2f}"] if each is not None else []),
    ]


def _key_cells(key: Key, parts: int) -> list[str]:
    cells = [value or '""' for value in key[:parts]]
    cells = [cell if len(cell) <= _LONGEST_CELL else cell[: _LONGEST_CELL - 1] + "…" for cell in cells]
    return cells + [""] * (parts - len(cells))


def _with_interval(interval: Sequence[float | None] | None, write: Any) -> str:  # noqa: ANN401 - a function of a number
    """Return `value (low to high)` as text; `write` formats each number."""
    if interval is None or interval[0] is None:
        return "-"
    value, low, high = interval
    if low == high == value:
        return str(write(value))
    top = "…" if high is None else write(high)
    return f"{write(value)} ({write(low)} to {top})"


def _rate(rate: float, unit: str) -> str:
    return f"{_size(rate)}/s" if unit == "bytes" else f"{_number(rate)} {unit}/s"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004 - three significant digits


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


def _duration(seconds: float) -> str:
    if seconds >= 100:  # noqa: PLR2004 - from here on, minutes read better
        return format_duration(round(seconds))
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 - bytes in a KiB
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError
