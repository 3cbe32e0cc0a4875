"""Load the extension module in C, if it was compiled: it reads traces, counts items, edits attributes and reads JSON.

If it was not compiled, `extension` is `None`, and Python code does the same more slowly
(docs/adr/0008-traces-in-c.md, docs/adr/0015-edits-in-place.md).
"""

from __future__ import annotations

import importlib
import os
from typing import Any

PURE = "OTELWP_PURE_PYTHON"
"""The environment variable that, set to any value, disables the extension module."""


def load() -> Any:  # noqa: ANN401 - a module in C has no Python types
    """Return the extension module; `None` if it was not compiled or is disabled."""
    if os.environ.get(PURE):
        return None
    try:
        return importlib.import_module("otelwp_agent.model.native._native")
    except ImportError:  # there was no compiler
        return None


extension = load()
