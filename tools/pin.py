"""Write the versions installed in this interpreter's environment to constraints.txt: names and versions alone.

Run by `make pin`, after `.venv` has been brought to the versions that are wanted. The project itself, and pip, which
makes the environment, are left out. The names are those of every supported Python: where a version needs more, run
this with it and keep what it adds.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"otelwp-agent", "pip"}


def normalize(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> str:
    """Return one `name==version` line for everything installed."""
    versions = {normalize(each.metadata["Name"]): each.version for each in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()) if name not in LEFT_OUT)


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(pins(), "utf-8")
    print(f"constraints.txt: {len(pins().splitlines())} versions, from Python {sys.version.split()[0]}")
