"""Write docs/topics/fault-injection.md: what each component does when a system call on its files fails.

Every call of a short life of each component fails once with each error, and from a point on with all that follow; then
the component is started again. Exits 1 if anything acknowledged is lost, anything breaks or goes unreported, or with
`--check` if the page differs. Takes about 20 seconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SCENARIOS = import_module("tests.faults.scenarios").SCENARIOS  # loaded by name: tests have no types
run_all = import_module("tests.kit.fault_runs").run_all

PAGE = ROOT / "docs" / "topics" / "fault-injection.md"
NO_EFFECT = {
    ("close", ""): "what must be on disk was forced there before",
    ("", "short"): "the rest is read or written by further calls",
    ("lstat", "ENOENT"): "there is no link to refuse; the next call decides",
    ("stat", "ENOENT"): "treated as missing and created, or seen to be in place by the next check",
    ("open", "ENOENT"): "treated as missing: an absent mark or state is a first start",
    ("unlink", "ENOENT"): "the file is gone, as it should be",
}
"""Faults that nobody needs to hear of, by system call and error; "" stands for any."""
HEAD = """\
<!-- Written by `python tools/faults.py` from what it observes. Change the code, not this. -->

# Fault injection

What the agent does when a system call on its own files fails. For each row, every such call in a short life of the
component (`calls` of them) fails in turn, alone and then with all that follow it; after that the agent is started again
without faults. In every run what was acknowledged is there after the restart, no exception escapes, and the failure is
reported as the row says, unless it has no effect. `short` is a call that does half of what it was asked to. Log lines
begin with their level.

`ENOSPC` is a full disk, `EIO` a broken one, `EACCES` a missing permission, `ENOENT` a missing file. Scenarios:
[tests/faults/scenarios.py](../../tests/faults/scenarios.py), injection:
[tests/kit/faults.py](../../tests/kit/faults.py). `make test` fails if this page is not what the code does.
"""


def no_effect(call: str, error: str) -> str:
    """Return why a fault may go unreported; "" if it may not."""
    found = (NO_EFFECT.get(key, "") for key in ((call, error), (call, ""), ("", error)))
    return next(filter(None, found), "")


def unreported(reason: str, anyway: list[str]) -> str:
    """Return the outcome of a run that reports no more than a run without a fault does."""
    return f"no effect: {reason}" if reason or not anyway else "no more than without a fault"


def observe() -> tuple[str, list[str]]:
    """Return the page, and everything that is wrong."""
    parts, problems = [HEAD], []
    for scenario in SCENARIOS:
        clean, runs = run_all(scenario)
        problems += [f"{scenario.name}, without a fault: {problem}" for problem in clean.problems]
        outcomes: dict[tuple[str, str], set[str]] = {}
        for fault, run in runs:
            problems += [f"{scenario.name}, {fault}: {problem}" for problem in run.problems]
            seen = set(run.reports) - set(clean.reports)
            reason = no_effect(fault.call, fault.error)
            if run.fired and not seen and not reason and not clean.reports:
                problems.append(f"{scenario.name}, {fault}: nobody would notice")
            if run.fired:
                outcomes.setdefault((fault.call, fault.error), set()).update(
                    seen or {unreported(reason, clean.reports)}
                )
        parts.append(table(scenario.name, clean.calls, outcomes))
    return "\n".join(parts), problems


def table(name: str, calls: dict[str, int], outcomes: dict[tuple[str, str], set[str]]) -> str:
    """Return a component's rows, errors with the same outcome in one."""
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (call, error), seen in sorted(outcomes.items()):
        rows.setdefault((call, tuple(sorted(seen))), []).append(error)
    lines = [f"## {name.capitalize()}\n", "| system call | calls | error | outcome |", "|---|---|---|---|"]
    lines += [
        f"| `{call}` | {calls[call]} | {', '.join(errors)} | {'<br>'.join(seen)} |"
        for (call, seen), errors in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    page, problems = observe()
    for problem in problems:
        print(problem)
    if "--check" not in arguments:
        PAGE.write_text(page, "utf-8")
    elif PAGE.read_text("utf-8") != page:
        problems.append("differs")
        print(f"{PAGE.relative_to(ROOT)} differs: run `python tools/faults.py`")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
