"""Contracts about the life cycle: build, start and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import Connector, Processor
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.contract import contract
from otelwp_agent.testing.requirement import require
from otelwp_agent.testing.subject import deliver

if TYPE_CHECKING:
    from otelwp_agent.component import Component
    from otelwp_agent.testing.subject import Subject

_OPEN_FILES = Path("/proc/self/fd")
"""The directory in which Linux lists open files; on other systems only tasks and threads are compared."""

_LOOP_THREADS = "asyncio_"
"""Beginning of the names of threads in the default executor of an event loop (`BaseEventLoop.run_in_executor`)."""

_PAUSES = [0.01 * 2**number for number in range(9)]
"""Seconds between two checks whether everything is closed, 5 in total: the close of a socket is not reported."""

Open = tuple[list[str], set["asyncio.Task[Any]"], set[str]]


@contract()
async def shutdown_works_at_any_time(subject: Subject) -> None:
    """Accept a call of `shutdown` before `start`, and a second call.

    If the start of the agent fails, `shutdown` is called on all components, also on those that were not started.
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

    This covers files, sockets, tasks and threads. `validate` and a reload build components that are never started.
    """

    async def run_once() -> tuple[Open, Component]:
        component, _ = subject.build()
        built = await open_things()
        await component.start()
        component.health()
        await component.shutdown()
        return built, component

    await run_once()  # libraries open some things once for the process, such as gRPC's poller
    before = await open_things()
    built, component = await run_once()
    opened = _opened(before, built)
    require(not opened, f"building it opened {opened}")
    await require_closed(before)
    del component  # it is kept until here, so that the garbage collector does not close its files


@contract()
async def instruments_are_declared(subject: Subject) -> None:
    """Declare every instrument that the component uses in its factory.

    The documentation takes the list of a component's metrics from its `FACTORY`.
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
    """Start and stop the component once, so that its libraries open what they keep open for the process."""
    component, _ = subject.build()
    await component.start()
    await component.shutdown()


async def open_things() -> Open:
    """Return the open descriptors, tasks and threads of this process, after a garbage collection.

    The pollers of event loops and of gRPC are left out: they belong to the process. So are the threads in which event
    loops run what `asyncio.to_thread` calls: a loop starts another one whenever all others are busy.
    """
    gc.collect()
    await asyncio.sleep(0)
    threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith(_LOOP_THREADS)}
    return _descriptors(), asyncio.all_tasks(), threads


async def require_closed(before: Open) -> None:
    """Fail if anything is still open after up to 5 seconds that was not open `before`."""
    opened = _opened(before, await open_things())
    for pause in _PAUSES:
        if not opened:
            break
        await asyncio.sleep(pause)
        opened = _opened(before, await open_things())
    require(not opened, f"still open after shutdown: {opened}")


def _descriptors() -> list[str]:
    if not _OPEN_FILES.exists():
        return []
    found = []
    for entry in _OPEN_FILES.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that reads the directory
            found.append(str(entry.readlink()))
    return sorted(each for each in found if not each.startswith("anon_inode:"))


def _opened(before: Open, now: Open) -> str:
    """Return what is open `now` and was not `before`; "" if nothing is.

    Things that were closed in the meantime do not count: a library may close its own only after a delay.
    """
    files = [each for each in now[0] if now[0].count(each) > before[0].count(each)]
    tasks = [task.get_name() for task in now[1] - before[1]]
    return ", ".join([*files, *tasks, *sorted(now[2] - before[2])])


CONTRACTS = (shutdown_works_at_any_time, nothing_stays_open, instruments_are_declared)
