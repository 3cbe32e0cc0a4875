"""How the kernel schedules the agent among its neighbours."""

from __future__ import annotations

import contextlib
import os
from typing import Literal


def give_way(scheduling: Literal["batch", "normal"]) -> None:
    """With `batch`, do not take the CPU from who has just woken the agent by sending to it (SCHED_BATCH, sched(7)).

    Without that, on a busy host, the kernel often runs the agent at once on the page's CPU, and PHP waits until it has
    read. It holds for this thread and those that it starts. Where the system knows no such thing, nothing changes.
    """
    if scheduling == "batch" and hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
