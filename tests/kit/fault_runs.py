"""Run a scenario with one fault, and say what an operator would have seen."""

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from structlog.testing import capture_logs

from otelwp_agent.journal import commits
from tests.kit.faults import Faults, faults

PATIENCE = 60.0
"""Seconds after which a run hangs."""
LEVELS = ("warning", "error", "critical")


@dataclass
class Run:
    """What one run has shown."""

    calls: Counter
    fired: int
    reports: list
    problems: list = field(default_factory=list)


def run(scenario, template, folder, fault=None):
    """Run a scenario in a copy of what an earlier run has left (`template`), then restart it without faults."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    reports, problems = set(), []

    async def play():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(f"escaped to the loop: {context}"))
        async with asyncio.timeout(PATIENCE):
            return await scenario.run(folder, reports, faults)

    promised = None
    with Faults(folder, fault) as faults, capture_logs() as log:
        try:
            promised = asyncio.run(play())
        except Exception as error:  # noqa: BLE001 - whatever escapes is what this looks for
            problems.append(f"escaped: {error!r}")
        faults.stop()
    problems += [f"went past the replaced functions: {each}" for each in faults.missed]
    reports |= {f"{line['log_level'].upper()} {line['event']}" for line in log if line["log_level"] in LEVELS}
    if not any("escaped" in problem for problem in problems):
        try:
            with capture_logs():
                asyncio.run(scenario.check(folder, promised))
        except Exception as error:  # noqa: BLE001 - the same
            problems.append(f"after the restart: {error!r}")
    return Run(faults.calls, faults.fired, sorted(reports), problems)


def run_all(scenario):
    """Return the run without a fault, and those of every fault that can hit it."""
    with tempfile.TemporaryDirectory() as place, _quick():
        template, folder = Path(place) / "earlier", Path(place) / "now"
        template.mkdir()
        scenario.prepare(template)
        clean = run(scenario, template, folder)
        return clean, [(fault, run(scenario, template, folder, fault)) for fault in faults(clean.calls)]


@contextmanager
def _quick():
    """Let commits follow each other at once."""
    interval, commits.GROUP_INTERVAL = commits.GROUP_INTERVAL, 0.0
    try:
        yield
    finally:
        commits.GROUP_INTERVAL = interval
