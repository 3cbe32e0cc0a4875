"""Scheduling policy of the agent's process."""

from __future__ import annotations

import contextlib
import os
from typing import Literal


def set_scheduling(scheduling: Literal["batch", "normal"]) -> None:
    """With `batch`, do not preempt the process that sent data to the agent (SCHED_BATCH, sched(7)).

    Otherwise, on a busy host, the kernel often runs the agent immediately on the CPU of the PHP process, which waits
    until the agent has read. Applies to this thread and the threads that it starts. Does nothing on systems without
    SCHED_BATCH.
    """
    if scheduling == "batch" and hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
