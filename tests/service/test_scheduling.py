import os
import subprocess
import sys

import pytest

CHILD = """
import os
from otelwp_agent.service.scheduling import set_scheduling
set_scheduling({!r})
print(os.sched_getscheduler(0))
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has SCHED_BATCH")
@pytest.mark.parametrize("scheduling", ["batch", "normal"])
def test_a_background_process_gives_way(scheduling):
    before = os.sched_getscheduler(0)
    printed = subprocess.run(
        [sys.executable, "-c", CHILD.format(scheduling)], check=True, capture_output=True, text=True
    ).stdout
    assert int(printed) == (os.SCHED_BATCH if scheduling == "batch" else before)
