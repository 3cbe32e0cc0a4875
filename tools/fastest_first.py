"""Let pytest run the fastest tests first, by the durations that mutmut has recorded.

`tools/mutants.py` copies this file as `conftest.py` beside the tests. The tests of a mutant end with the first failure,
so most mutants are killed without waiting for the slow tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path("mutmut-stats.json")
"""Written by mutmut into the folder in which the tests run, after it has run all of them once."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Sort the tests; those without a recorded duration keep their places at the beginning."""
    if RECORDED.exists():
        durations = json.loads(RECORDED.read_text("utf-8"))["duration_by_test"]
        items.sort(key=lambda item: durations.get(item.nodeid, 0.0))
