"""What a component does from being built to being shut down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import Connector, Processor
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.contract import contract, require
from otelwp_agent.testing.subject import deliver

if TYPE_CHECKING:
    from otelwp_agent.component import Component
    from otelwp_agent.testing.subject import Subject

_OPEN_FILES = Path("/proc/self/fd")
"""Where Linux lists what this process has open; elsewhere only tasks and threads are compared."""

_PAUSES = [0.01 * 2**number for number in range(9)]
"""Seconds between two looks at what closes a moment later, 5 in all: nothing tells when a socket has gone."""

Open = tuple[list[str], set["asyncio.Task[Any]"], set[str]]


@contract()
async def shutdown_works_at_any_time(subject: Subject) -> None:
    """Let `shutdown` work before `start`, and twice.

    A start that fails is undone by `shutdown`, also of components that have not been started yet.
    """
    component, _ = subject.build()
    await component.shutdown()
    await component.shutdown()
    await start_and_stop(subject)
    component, _ = subject.build()
    await component.start()
    await component.shutdown()
    await component.shutdown()


@contract()
async def nothing_stays_open(subject: Subject) -> None:
    """Open nothing before `start`, and close everything in `shutdown`.

    Files, sockets, tasks and threads count. `validate` and a reload build components that never start.
    """

    async def live() -> tuple[Open, Component]:
        component, _ = subject.build()
        built = await open_things()
        await component.start()
        component.health()
        await component.shutdown()
        return built, component

    await live()  # what a library opens once for the process (gRPC's poller) is not the component's
    before = await open_things()
    built, component = await live()
    require(built == before, f"building it opened {_difference(before, built)}")
    await require_closed(before)
    del component  # until here it was in use: what it has open is not closed by collecting it


@contract()
async def instruments_are_declared(subject: Subject) -> None:
    """Declare every instrument that the component uses in its factory.

    The documentation lists a component's metrics from its `FACTORY`.
    """
    registry = Registry()
    component, catcher = subject.build(registry=registry)
    await component.start()
    if isinstance(component, (Processor, Connector)):
        for signal in subject.signals():
            for batch in subject.batches(signal):
                component.consume(batch)
    await component.shutdown()
    deliver(catcher)
    undeclared = registry.names() - {instrument.name for instrument in subject.factory.instruments}
    require(not undeclared, f"it uses {', '.join(sorted(undeclared))}, which `instruments` does not contain")


async def start_and_stop(subject: Subject) -> None:
    """Run the component once, so that what its libraries open for the whole process is open."""
    component, _ = subject.build()
    await component.start()
    await component.shutdown()


async def open_things() -> Open:
    """Return what this process has open: descriptors, tasks and threads, after collecting components that are gone.

    The pollers of event loops and of gRPC do not count: they belong to the process.
    """
    gc.collect()
    await asyncio.sleep(0)
    return _descriptors(), asyncio.all_tasks(), {thread.name for thread in threading.enumerate()}


async def require_closed(before: Open) -> None:
    """Wait for what closes a moment later; fail if anything stays open."""
    now = await open_things()
    for pause in _PAUSES:
        if now == before:
            break
        await asyncio.sleep(pause)
        now = await open_things()
    require(now == before, f"after shutdown this is still open: {_difference(before, now)}")


def _descriptors() -> list[str]:
    if not _OPEN_FILES.exists():
        return []
    found = []
    for entry in _OPEN_FILES.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            found.append(str(entry.readlink()))
    return sorted(each for each in found if not each.startswith("anon_inode:"))


def _difference(before: Open, now: Open) -> str:
    files = [each for each in now[0] if now[0].count(each) > before[0].count(each)]
    tasks = [task.get_name() for task in now[1] - before[1]]
    return ", ".join([*files, *tasks, *sorted(now[2] - before[2])]) or "less than before"


CONTRACTS = (shutdown_works_at_any_time, nothing_stays_open, instruments_are_declared)
