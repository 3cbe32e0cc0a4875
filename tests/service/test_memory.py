import subprocess
import sys

import pytest

PROGRAM = """
import gc
from pathlib import Path
import pydantic, uvloop
from otelwp_agent.service import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

before = resident()
memory.release()
assert gc.get_threshold() == memory.GC_THRESHOLD
assert gc.get_freeze_count() > 1000
print(before, resident())

class Still(pydantic.BaseModel):
    works: int

assert Still(works="1").works == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_release_gives_memory_back_and_everything_works_on():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before * 0.9
