"""Let pytest run the fastest tests first, by the durations that mutmut has recorded, and start quickly.

`tools/mutants.py` copies this file as `conftest.py` beside the tests. The tests of a mutant end with the first failure,
so most mutants are killed without waiting for the slow tests.

mutmut collects the tests once, and forks a process for each mutant. pytest runs the garbage collector several times at
the end of each process; it took more than half of the time of a mutant that is killed at once. So everything that
exists after the collection is excluded from garbage collection.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    import pytest

RECORDED = Path("mutmut-stats.json")
"""Written by mutmut into the folder in which the tests run, after it has run all of them once."""

# The same examples for every mutant. A failing example is not minimized, because no one reads it.
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Sort the tests; those without a recorded duration keep their places at the beginning."""
    if RECORDED.exists():
        durations = json.loads(RECORDED.read_text("utf-8"))["duration_by_test"]
        items.sort(key=lambda item: durations.get(item.nodeid, 0.0))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exclude all objects from garbage collection if the tests are only collected."""
    if session.config.option.collectonly:
        gc.collect()
        gc.freeze()
