"""Measure the cost of editing attributes and of decoding OTLP/JSON, without I/O: CPU microseconds for each request.

Run: `.venv/bin/python benchmarks/edits.py`. With `--baseline DIR` another checkout, which has a `.venv`, is measured in
the same rounds. With `--pure` this checkout is also measured without the extension module. It takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from processors import build, feed, measure, request

from otelwp_agent.codecs.otlp_json import decode, encode
from otelwp_agent.model.native import PURE
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = ("url.path", "http.request.method", "http.route", "server.address", "db.calls")
FILTER = {"match_type": "regexp", "span_names": ["^GET"], "attributes": [{"key": "http.route", "value": "product"}]}
DELETE = [{"key": "url.path", "action": "delete"}]
EDITS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("delete 1", "attributes", {"actions": DELETE}),
    ("update 5", "attributes", {"actions": [{"key": key, "value": "x", "action": "update"} for key in KEYS]}),
    ("hash 1", "attributes", {"actions": [{"key": "url.path", "action": "hash"}]}),
    ("convert 1", "attributes", {"actions": [{"key": KEYS[4], "action": "convert", "converted_type": "string"}]}),
    ("delete by pattern", "attributes", {"actions": [{"pattern": "^url", "action": "delete"}]}),
    ("delete 1, included", "attributes", {"actions": DELETE, "include": FILTER}),
    ("upsert", "resource", {"attributes": [{"key": "env", "value": "prod", "action": "upsert"}]}),
)
SPANS = (1, 10, 100)
REPEATS = 2000
"""Requests of one span that are measured at once; proportionally fewer of larger ones."""


def cases() -> dict[str, dict[int, Callable[[], object]]]:
    """Return what is measured: name → spans in a request → a function that processes one request."""
    found: dict[str, dict[int, Callable[[], object]]] = {}
    bodies = {spans: request(spans) for spans in SPANS}
    for name, type_, settings in EDITS:
        stage = build(type_, settings)
        found[f"{type_}, {name}"] = {spans: feed(stage, body, spans) for spans, body in bodies.items()}
    documents = {spans: encode(Signal.TRACES, body) for spans, body in bodies.items()}
    found["OTLP/JSON, decode"] = {
        spans: lambda document=document: decode(Signal.TRACES, document)  # type: ignore[misc]
        for spans, document in documents.items()
    }
    return found


def one_round() -> dict[str, list[float]]:
    """Return microseconds for each case and number of spans."""
    return {
        name: [measure(work, REPEATS // 10 // spans + 1) / 1000 for spans, work in works.items()]  # type: ignore[arg-type]
        for name, works in cases().items()
    }


def run(interpreter: Path | str, environment: dict[str, str]) -> dict[str, list[float]]:
    """Measure one round in a process of its own."""
    command = [str(interpreter), __file__, "--one-round"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure all in turns, and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="another checkout to measure in the same rounds")
    parser.add_argument("--pure", action="store_true", help="also measure without the extension module")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--one-round", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_round:
        print(json.dumps(one_round()))
        return
    checkouts: dict[str, tuple[Path | str, dict[str, str]]] = {"this checkout": (sys.executable, {})}
    if options.pure:
        checkouts["without C"] = (sys.executable, {PURE: "1"})
    if options.baseline is not None:
        checkouts["baseline"] = (options.baseline.resolve() / ".venv/bin/python", {})
    samples: dict[str, list[dict[str, list[float]]]] = {name: [] for name in checkouts}
    for _ in range(options.rounds):
        for name, (interpreter, environment) in checkouts.items():
            samples[name].append(run(interpreter, environment))
    counts = " / ".join(map(str, SPANS))
    print(f"CPU microseconds a request of {counts} spans, medians of {options.rounds} rounds\n")
    print("| | " + " | ".join(checkouts) + " |")
    print("|---|" + "---:|" * len(checkouts))
    for case in next(iter(samples.values()))[0]:
        cells = []
        for rounds in samples.values():
            medians = [median(each[case][place] for each in rounds) for place in range(len(SPANS))]
            cells.append(" / ".join(f"{number:.0f}" if number >= 10 else f"{number:.1f}" for number in medians))
        print(f"| {case} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
