"""Write the packages installed in this interpreter's environment to constraints.txt: only names and versions.

Run by `make pin`, after the wanted versions have been installed in `.venv`. The project itself and pip are left out.
The names must cover every supported Python: if a Python version needs more packages, run this with it and keep its
additions.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"otelwp-agent", "pip"}


def normalize(name: str) -> str:
    """Return the name of a distribution, normalized as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> str:
    """Return a line `name==version` for every installed package."""
    versions = {normalize(each.metadata["Name"]): each.version for each in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()) if name not in LEFT_OUT)


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(pins(), "utf-8")
    print(f"constraints.txt: {len(pins().splitlines())} versions, from Python {sys.version.split()[0]}")
